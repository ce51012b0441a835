"""The workers' settings beside ours: all processes of a system need the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import RedisError

from celery_stargate.model.buckets import bucket_tags
from celery_stargate.model.settings import Settings
from celery_stargate.operations.doctor.celery_checks import package_versions
from celery_stargate.operations.doctor.finding import Check, Problem, error, note, warning

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["COMMAND", "PEER_CHECKS", "PeerFacts", "PeerSettings", "gather_peers", "settings_here"]

#: The command of remote control that a worker answers with its settings.
COMMAND = "stargate_settings"
#: How long workers have to answer, in seconds.
_TIMEOUT = 1.0


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What all processes of a system must agree about."""

    #: Of celery-stargate.
    version: str | None = None
    prefix: str = ""
    #: On a Redis Cluster, in how many buckets the lanes are; 0 elsewhere.
    buckets: int = 0
    #: Pulsar's.
    url: str | None = None
    #: By which Redis, or the Cluster's first node by its id, knows itself; None if the user may not
    #: ask.
    redis_id: str | None = None
    #: By topic.
    lanes: dict[str, int] = {}
    delivery: dict[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class PeerFacts:
    """Our settings, and those of the workers that answered."""

    ours: PeerSettings
    theirs: Mapping[str, PeerSettings]
    #: Whether the broker could be asked.
    asked: bool = True


def settings_here(settings: Settings, redis: Any) -> PeerSettings:
    """Return the settings of this process.

    Arguments:
        settings: of Stargate.
        redis: a sync client of the lanes' Redis.
    """
    buckets = len(bucket_tags(settings.keyspace)[1])
    try:
        redis_id = _cluster_id(redis) if buckets else redis.info("server").get("run_id")
    except (RedisError, OSError):
        redis_id = None
    topics = [settings.resolve(topic) for topic, _ in settings.topics.values()]
    if settings.topic is not None:
        topics.append(settings.resolve(settings.topic))
    return PeerSettings(
        version=package_versions()["celery-stargate"],
        prefix=settings.prefix,
        buckets=buckets,
        url=settings.url,
        redis_id=redis_id,
        lanes={str(topic): options.lane_count for topic, options in topics},
        delivery={str(topic): options.delivery for topic, options in topics},
    )


def _cluster_id(redis: Any) -> str:
    """Return the least id of the nodes: whichever node answers, all of them know the same nodes."""
    return str(min(node["node_id"] for node in redis.execute_command("CLUSTER NODES").values()))


def gather_peers(app: Celery, ours: PeerSettings) -> PeerFacts:
    """Ask the workers for their settings, through the broker.

    Arguments:
        app: the Celery app.
        ours: the settings of this process.
    """
    try:
        replies: Any = app.control.broadcast(COMMAND, reply=True, timeout=_TIMEOUT)
    except Exception:  # noqa: BLE001  # each transport raises its own; the check "broker" tells it
        return PeerFacts(ours=ours, theirs={}, asked=False)
    theirs = {}
    for reply in replies or ():
        for worker, answer in reply.items():
            try:
                theirs[worker] = msgspec.convert(answer, PeerSettings)
            except msgspec.ValidationError:
                # A worker of another version, or with an error of its own.
                continue
    return PeerFacts(ours=ours, theirs=theirs)


def _places(facts: PeerFacts) -> Iterable[Problem]:
    for worker, its in facts.theirs.items():
        if its.prefix != facts.ours.prefix:
            yield error(
                f"{worker} has stargate_prefix {its.prefix!r}, here it is {facts.ours.prefix!r}",
                "it does not see the lanes of this process, and sends nothing of it",
                "give all processes the same stargate_prefix",
            )
        if its.buckets != facts.ours.buckets:
            yield error(
                f"{worker} has its lanes in {its.buckets} buckets, here it is {facts.ours.buckets}",
                "it does not see the lanes of this process, and sends nothing of it",
                "give all processes the same stargate_redis_url and stargate_redis_buckets",
            )
        known = its.redis_id is not None and facts.ours.redis_id is not None
        if known and its.redis_id != facts.ours.redis_id:
            yield error(
                f"{worker} has its lanes in another Redis",
                "it does not see the lanes of this process, and sends nothing of it",
                "give all processes the same stargate_redis_url",
            )
        if its.url != facts.ours.url:
            yield note(
                f"{worker} has stargate_url {its.url}, here it is {facts.ours.url}",
                "messages go where the worker's leads",
                "give all processes the same stargate_url, if they mean the same Pulsar",
            )


def _topics(facts: PeerFacts) -> Iterable[Problem]:
    for worker, its in facts.theirs.items():
        for topic, lanes in facts.ours.lanes.items():
            found = its.lanes.get(topic, lanes)
            if found != lanes:
                yield warning(
                    f"{worker} has {found} lanes for {topic}, here it has {lanes}",
                    "messages of one key go into two lanes, and lose their order",
                    "give all processes the same stargate_lanes",
                )
        for topic, delivery in facts.ours.delivery.items():
            told = its.delivery.get(topic, delivery)
            if told != delivery:
                yield warning(
                    f"{worker} has stargate_delivery {told} for {topic}, here it is {delivery}",
                    "what the owner of the lane has decides",
                    "give all processes the same stargate_delivery",
                )


def _versions(facts: PeerFacts) -> Iterable[Problem]:
    for worker, its in facts.theirs.items():
        if its.version != facts.ours.version:
            yield warning(
                f"{worker} runs celery-stargate {its.version}, here it is {facts.ours.version}",
                "an older version leaves records of a newer one alone",
                "deploy the same version everywhere",
            )


PEER_CHECKS: list[Check[PeerFacts]] = [
    Check("workers-place", "the workers that answered use this Redis and prefix", _places),
    Check("workers-topics", "the workers that answered have these lanes", _topics),
    Check("workers-version", "the workers that answered run this version", _versions),
]
