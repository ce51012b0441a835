"""The topics: does Pulsar take a producer, and keep what it stores?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic
from celery_stargate.operations.doctor.finding import Check, Problem, error, note, warning
from celery_stargate.pulsar.admin import AdminApi
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.link import HandshakeRefused, LinkBroken
from celery_stargate.pulsar.producer import Producer

__all__ = ["TOPIC_CHECKS", "TopicFacts", "gather_topic"]

#: Pulsar's default for ``webSocketMaxTextFrameSize``, in bytes.
_DEFAULT_FRAME = 1_048_576
_POLICY_EVICTS = "consumer_backlog_eviction"


@dataclass(frozen=True, kw_only=True)
class TopicFacts:
    """What Pulsar tells of one topic. None where it does not tell."""

    topic: Topic
    options: ProducerOptions
    #: Whether the admin API answers.
    admin: bool = False
    exists: bool | None = None
    partitions: int | None = None
    #: The HTTP status and the sentence of a refused handshake.
    refused: tuple[int, str] | None = None
    #: Why the handshake came to no answer.
    broken: str | None = None
    #: Whether a handshake was tried.
    tried: bool = False
    #: The role in the token.
    role: str | None = None
    subscriptions: int | None = None
    backlog_bytes: int = 0
    deduplication: str | None = None
    #: Minutes and megabytes; 0 for none, -1 for ever.
    retention: tuple[int, int] | None = None
    #: Backlog quotas by type.
    quotas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    has_schema: bool | None = None
    schema_enforced: bool | None = None
    #: The broker's configuration, as far as the checks need it.
    broker: Mapping[str, str] = field(default_factory=dict)


def gather_topic(
    endpoint: Endpoint,
    admin: AdminApi,
    topic: Topic,
    options: ProducerOptions,
    *,
    role: str | None = None,
) -> TopicFacts:
    """Ask Pulsar about a topic, and open a producer on it for a moment.

    A topic that does not exist gets no producer, which would make it.

    Arguments:
        endpoint: where Pulsar is.
        admin: its admin API.
        topic: the topic.
        options: its producer options.
        role: that the token is for.
    """
    told = _ask(admin, topic)
    tried: dict[str, Any] = {}
    if told.get("exists") is not False:
        tried = _try(endpoint, topic, options, told.get("partitions"))
    return TopicFacts(topic=topic, options=options, role=role, **told, **tried)


def _ask(admin: AdminApi, topic: Topic) -> dict[str, Any]:
    path = topic.path
    partitions = admin.get(f"{path}/partitions")
    if partitions.status not in (200, 404):
        return {}
    told: dict[str, Any] = {"admin": True}
    count = int(partitions.fields.get("partitions", 0)) if partitions.status == 200 else 0
    stats = admin.get(f"{topic.partition(0).path}/stats" if count else f"{path}/stats")
    told["exists"] = partitions.status == 200 and (count > 0 or stats.status == 200)
    if stats.status not in (200, 404):
        # The token may look at the partitions only; nothing is known of the rest.
        told["exists"] = None if not count else True
    told["partitions"] = count
    told["broker"] = admin.get("brokers/configuration/runtime").fields
    if not told["exists"]:
        return told
    if stats.status == 200:
        told["subscriptions"] = len(stats.fields.get("subscriptions", {}))
        told["backlog_bytes"] = int(stats.fields.get("backlogSize", 0))
        told["deduplication"] = stats.fields.get("deduplicationStatus")
    retention = admin.get(f"{path}/retention?applied=true")
    if retention.fields:
        told["retention"] = (
            int(retention.fields.get("retentionTimeInMinutes", 0)),
            int(retention.fields.get("retentionSizeInMB", 0)),
        )
    told["quotas"] = admin.get(f"{path}/backlogQuotaMap?applied=true").fields
    schema = admin.get(f"schemas/{path.split('/', 1)[1]}/schema")
    if schema.status in (200, 404):
        told["has_schema"] = schema.status == 200
    enforced = admin.get(f"{path}/schemaValidationEnforced?applied=true")
    if enforced.status == 200:
        told["schema_enforced"] = bool(enforced.value)
    return told


def _try(
    endpoint: Endpoint, topic: Topic, options: ProducerOptions, partitions: int | None
) -> dict[str, Any]:
    """Open a producer as a lane's owner does, but under no name, which an owner may have."""
    nameless = replace(options, producer_name=None, initial_sequence_id=None)
    place = topic.partition(0) if options.partitions and partitions else topic

    async def open_and_close() -> None:
        producer = Producer(endpoint, place, nameless)
        try:
            await producer.open()
        finally:
            await producer.close()

    tried: dict[str, Any] = {"tried": True}
    try:
        asyncio.run(open_and_close())
    except HandshakeRefused as refused:
        tried["refused"] = refused.status, refused.sentence
    except LinkBroken as broken:
        tried["broken"] = str(broken)
    return tried


def _handshake(facts: TopicFacts) -> Iterable[Problem]:
    why = "its messages are refused, or wait until that is mended"
    if facts.broken:
        yield error(
            f"{facts.topic}: {facts.broken}",
            why,
            "check that stargate_url is Pulsar's web service port with webSocketServiceEnabled",
        )
    if facts.refused is None:
        return
    status, sentence = facts.refused
    meaning, mend = _words(status, facts)
    yield error(f"{facts.topic}: {meaning} ({sentence})", why, mend)


def _words(status: int, facts: TopicFacts) -> tuple[str, str]:
    """Return what a refused handshake means, and what mends it."""
    namespace = f"{facts.topic.tenant}/{facts.topic.namespace}"
    if 300 <= status < 400:
        return (
            "Pulsar redirects the handshake, and the token does not follow",
            "set stargate_url to where the redirect leads",
        )
    return {
        400: (
            "Pulsar does not take a producer option",
            "check the options of the topic in stargate_topics; they are in docs/settings.md",
        ),
        401: (
            "Pulsar does not accept the token, or wants one",
            "set stargate_token to a token that the broker's key signed and that is not expired",
        ),
        403: (
            "the token's role may not produce",
            (
                f"pulsar-admin namespaces grant-permission {namespace} "
                f"--role {facts.role or '<role>'} --actions produce"
            ),
        ),
        404: (
            "the topic or its namespace does not exist",
            f"pulsar-admin namespaces create {namespace}; pulsar-admin topics create {facts.topic}",
        ),
        409: (
            "another producer has the name, or the topic's schema refuses raw bytes",
            "give stargate_producer_name to one process only, or remove the topic's schema",
        ),
        429: ("Pulsar has too many requests", "raise its limits, or use fewer lanes"),
        503: (
            "the topic is terminated, or its backlog quota is exceeded",
            f"pulsar-admin topics stats {facts.topic}; consume the backlog or raise the quota",
        ),
        504: ("Pulsar took too long", "look at the load of the brokers and bookies"),
    }.get(status, (f"Pulsar answered with HTTP {status}", "see the broker's log"))


def _existence(facts: TopicFacts) -> Iterable[Problem]:
    if facts.exists is not False:
        return
    mend = f"pulsar-admin topics create {facts.topic}"
    if facts.broker.get("allowAutoTopicCreation") == "false":
        yield error(
            f"{facts.topic} does not exist, and the broker makes no topics",
            "its messages are refused (404)",
            mend,
        )
    else:
        yield warning(
            f"{facts.topic} does not exist",
            "the first message makes it, without a subscription and with the default policies",
            mend,
        )


def _partitions(facts: TopicFacts) -> Iterable[Problem]:
    if facts.partitions is None or not facts.exists:
        return
    set_to, has = facts.options.partitions, facts.partitions
    if set_to is not None and set_to != has:
        yield error(
            f"{facts.topic} has {has} partitions, and stargate_partitions is {set_to}",
            "keys go to other partitions than Pulsar's clients choose, or to none",
            f"set partitions to {has} in the topic's options"
            if has
            else "leave stargate_partitions out",
        )
    elif set_to is None and has and facts.options.delivery == "effectively_once":
        yield error(
            f"{facts.topic} has {has} partitions, and stargate_partitions is not set",
            "effectively_once needs one lane for each partition; every message is refused",
            f"set partitions to {has} in the topic's options",
        )


def _retention(facts: TopicFacts) -> Iterable[Problem]:
    if not facts.topic.persistent or facts.retention is None or facts.subscriptions is None:
        return
    minutes, megabytes = facts.retention
    if facts.subscriptions == 0 and (minutes == 0 or megabytes == 0):
        namespace = f"{facts.topic.tenant}/{facts.topic.namespace}"
        yield error(
            f"{facts.topic} has no subscription and no retention",
            "Pulsar deletes what it has stored, with a receipt given, when its ledger rolls",
            f"pulsar-admin namespaces set-retention {namespace} --time 7d --size -1, "
            f"or pulsar-admin topics create-subscription -s <name> {facts.topic}",
        )


def _deduplication(facts: TopicFacts) -> Iterable[Problem]:
    if facts.options.delivery == "effectively_once" and facts.deduplication == "Disabled":
        namespace = f"{facts.topic.tenant}/{facts.topic.namespace}"
        yield error(
            f"{facts.topic} is not deduplicated, and stargate_delivery is effectively_once",
            "every message is refused",
            f"pulsar-admin namespaces set-deduplication {namespace} --enable",
        )


def _quota(facts: TopicFacts) -> Iterable[Problem]:
    for kind, quota in facts.quotas.items():
        limit = max(int(quota.get("limitSize", -1)), int(quota.get("limitTime", -1)))
        if limit <= 0:
            continue
        if quota.get("policy") == _POLICY_EVICTS:
            yield warning(
                f"{facts.topic}: the backlog quota ({kind}) evicts",
                "beyond the limit Pulsar drops messages that nobody has read yet",
                f"pulsar-admin namespaces set-backlog-quota {facts.topic.tenant}/"
                f"{facts.topic.namespace} --policy producer_exception --limit <size>",
            )
        size = int(quota.get("limitSize", -1))
        if size > 0 and facts.backlog_bytes > 0.8 * size:
            yield warning(
                f"{facts.topic}: its backlog is {facts.backlog_bytes / size:.0%} of its quota",
                "beyond the limit Pulsar takes no more messages; they wait in the lanes",
                "consume the topic, or raise its backlog quota",
            )


def _schema(facts: TopicFacts) -> Iterable[Problem]:
    if not facts.has_schema:
        return
    if facts.schema_enforced:
        yield error(
            f"{facts.topic} has a schema, and its namespace enforces schemas",
            "Pulsar's WebSocket producers have none: every handshake is refused",
            f"pulsar-admin namespaces set-schema-validation-enforce -d "
            f"{facts.topic.tenant}/{facts.topic.namespace}",
        )
    else:
        yield note(
            f"{facts.topic} has a schema",
            "Pulsar does not check messages of WebSocket producers against it",
            "make sure that the payloads are what its consumers expect",
        )


def _frame(facts: TopicFacts) -> Iterable[Problem]:
    wanted = facts.options.max_frame_size
    told = facts.broker.get("webSocketMaxTextFrameSize")
    limit = int(told) if told and told.isdigit() else _DEFAULT_FRAME
    if wanted <= limit:
        return
    why = "a larger frame closes the connection (1009), and all in flight there is sent again"
    mend = f"set stargate_max_frame_size to {limit}, or raise webSocketMaxTextFrameSize"
    if told:
        yield error(
            f"{facts.topic}: stargate_max_frame_size is {wanted}, the broker's limit {limit}",
            why,
            mend,
        )
    else:
        yield warning(
            f"{facts.topic}: stargate_max_frame_size is {wanted}, Pulsar's default {limit}; "
            "the broker does not tell its own",
            why,
            mend,
        )


def _looked(facts: TopicFacts) -> Iterable[Problem]:
    if not facts.admin:
        yield note(
            f"{facts.topic}: the admin API does not answer at stargate_url, or not to this token",
            "retention, partitions, deduplication, quotas and schemas could not be checked",
            "run doctor with a token that may read the topic's stats, on the broker itself",
        )


TOPIC_CHECKS: list[Check[TopicFacts]] = [
    Check("topic-handshake", "Pulsar takes a producer", _handshake),
    Check("topic-admin", "the admin API answers", _looked),
    Check("topic-exists", "the topic exists, as far as can be seen", _existence),
    Check("topic-partitions", "the partitions are as set", _partitions),
    Check("topic-retention", "Pulsar keeps what it stores", _retention),
    Check("topic-deduplication", "deduplication is as stargate_delivery needs", _deduplication),
    Check("topic-quota", "no backlog quota drops or stops messages", _quota),
    Check("topic-schema", "no schema is in the way", _schema),
    Check("topic-frame", "frames fit the broker's limit", _frame),
]
