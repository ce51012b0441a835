"""Ask all parts, and judge what they answer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis import Redis
from redis.exceptions import RedisError

from celery_stargate.errors import ConfigurationError
from celery_stargate.lanes.configured import find_target
from celery_stargate.lanes.connections import Connections, diagnose, servers_of
from celery_stargate.lanes.target import Target
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.model.topic import Topic
from celery_stargate.operations.doctor.celery_checks import CELERY_CHECKS, gather_celery
from celery_stargate.operations.doctor.finding import (
    Finding,
    Findings,
    Level,
    examine,
    examine_each,
    within,
)
from celery_stargate.operations.doctor.lanes import LANE_CHECKS, gather_lanes
from celery_stargate.operations.doctor.peers import (
    PEER_CHECKS,
    gather_peers,
    settings_here,
)
from celery_stargate.operations.doctor.redis_checks import REDIS_CHECKS, RedisFacts, gather_redis
from celery_stargate.operations.doctor.service import (
    SERVICE_CHECKS,
    ServiceFacts,
    gather_service,
)
from celery_stargate.operations.doctor.topics import TOPIC_CHECKS, gather_topic
from celery_stargate.operations.reading import LaneReader, configured_timeout
from celery_stargate.pulsar.admin import AdminApi
from celery_stargate.pulsar.endpoint import Endpoint

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Diagnosis"]

_REDIS_AWAY = (RedisError, OSError)


@dataclass(frozen=True)
class Diagnosis:
    """All checks of one app.

    Arguments:
        app: the Celery app.
    """

    app: Celery

    def findings(self) -> Iterator[Finding]:
        """Run all checks; each part is asked when the findings before it were taken.

        A part that cannot be asked is one finding, and the others go on; so is one that fails
        itself.
        """
        try:
            settings = Settings.read(self.app.conf, getattr(self.app, "namespace", None))
            target = find_target(self.app, settings.redis_url, settings.redis_options)
        except ConfigurationError as problem:
            yield Finding(
                "settings",
                Level.ERROR,
                str(problem),
                "no process of this app can start",
                "mend the setting; docs/settings.md lists all of them",
            )
            return
        yield Finding("settings", Level.OK, "the settings can be read")
        yield from within("celery", self._celery(settings))
        yield from within("redis", self._redis(settings, target))
        yield from within("pulsar", self._pulsar(settings))

    def _celery(self, settings: Settings) -> Findings:
        timeout = settings.options.delivery_timeout
        facts = gather_celery(self.app, via=settings.via, delivery_timeout=timeout)
        yield from examine(CELERY_CHECKS, facts)

    def _redis(self, settings: Settings, target: Target) -> Findings:
        connections = Connections(target)
        redis = connections.sync()
        facts: dict[str, RedisFacts] = {}
        try:
            servers = servers_of(redis)
            for name, server in servers.items():
                try:
                    facts[name] = gather_redis(server, settings.keyspace)
                except _REDIS_AWAY as problem:
                    yield _away(problem, name)
            all_answer = facts.keys() == servers.keys()
            if all_answer:
                yield Finding("redis-connection", Level.OK, "the lanes' Redis answers")
            if facts:
                yield from examine_each(REDIS_CHECKS, facts)
            if all_answer and all(each.holds_data for each in facts.values()):
                yield from within("lanes", self._lanes(settings, redis), but=_REDIS_AWAY)
        except _REDIS_AWAY as problem:
            yield _away(problem)
        finally:
            connections.close()

    def _lanes(self, settings: Settings, redis: Redis) -> Findings:
        reader = LaneReader(redis, settings.keyspace, configured_timeout(settings))
        lanes = gather_lanes(reader, settings)
        yield from examine(LANE_CHECKS, lanes)
        if lanes.alive:
            ours = settings_here(settings, redis)
            yield from examine(PEER_CHECKS, gather_peers(self.app, ours))

    def _pulsar(self, settings: Settings) -> Findings:
        try:
            endpoint = Endpoint.of(settings)
            facts = gather_service(endpoint)
        except ConfigurationError as problem:
            yield Finding(
                "pulsar-settings",
                Level.ERROR,
                str(problem),
                "no worker can start, and delay() raises ConfigurationError",
                "app.conf.stargate_url = 'ws://HOST:8080'",
            )
            return
        yield Finding("pulsar-settings", Level.OK, "Pulsar's settings can be used")
        yield from examine(SERVICE_CHECKS, facts)
        if facts.reachable:
            yield from self._topics(settings, endpoint, facts)

    def _topics(self, settings: Settings, endpoint: Endpoint, service: ServiceFacts) -> Findings:
        admin = AdminApi(endpoint)
        role = service.token.role if service.token else None
        topics = _topics_of(settings)
        if not topics:
            yield Finding(
                "topics",
                Level.NOTE,
                "no topic is in the settings",
                "each call must name one; doctor cannot check them",
                "set stargate_topic or stargate_topics",
            )
        for place, (topic, options) in enumerate(topics.items(), 1):
            silent = yield from within(
                "topics", _topic(endpoint, admin, topic, options, role), about=f"{topic}: "
            )
            left = len(topics) - place
            if silent and left:
                # Each would be waited for as long as the first one.
                yield Finding(
                    "topics",
                    Level.WARNING,
                    f"{left} more topics were not asked: what is at {endpoint.url} does not answer",
                    "nothing is known of them",
                    "mend the first topic's error, and run doctor again",
                )
                return


def _topic(
    endpoint: Endpoint, admin: AdminApi, topic: Topic, options: ProducerOptions, role: str | None
) -> Generator[Finding, None, bool]:
    """Yield what is found of a topic; return whether Pulsar does not answer at all."""
    facts = gather_topic(endpoint, admin, topic, options, role=role)
    yield from examine(TOPIC_CHECKS, facts)
    return facts.broken is not None and not facts.admin


def _topics_of(settings: Settings) -> Mapping[Topic, ProducerOptions]:
    names = [name for name, _ in settings.topics.values()]
    if settings.topic is not None:
        names.append(settings.topic)
    return dict(settings.resolve(name) for name in names)


def _away(problem: Exception, shard: str = "") -> Finding:
    """Return what is told of a Redis that does not answer.

    Arguments:
        shard: host and port of the master of a Cluster; empty for the only server, or for all.
    """
    found, advice = diagnose(problem)
    return Finding(
        "redis-connection",
        Level.ERROR,
        f"{shard or 'the lanes'}: {found}",
        "no message can be recorded"
        + (" in the lanes of this shard" if shard else "")
        + ": delay() raises StoreUnavailable",
        advice
        or (
            "start it, or a replica of it"
            if shard
            else "start Redis, or set stargate_redis_url to where it is"
        ),
    )
