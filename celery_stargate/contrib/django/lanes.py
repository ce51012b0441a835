"""The seam to the rest of the package: all that the outbox asks of lanes stands here.

Nothing else of ``contrib.django`` imports from ``calls``, ``effects``, ``lanes`` or ``operations``,
but ``dead_letters.py``, which is the seam to those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, Literal

from celery import current_app
from celery.canvas import maybe_signature

from celery_stargate.app import Stargate
from celery_stargate.calls import eager
from celery_stargate.calls.on_commit import frozen_arguments
from celery_stargate.calls.prepare import Call, CallOptions
from celery_stargate.effects.callbacks import STARTED_HEADER
from celery_stargate.effects.failures import Kind, kind_of
from celery_stargate.effects.signatures import Callbacks, unpack
from celery_stargate.errors import LaneFull
from celery_stargate.lanes.connections import servers_of, store_errors
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.message import Message, check_messages
from celery_stargate.model.outcome import Failure
from celery_stargate.operations.contexts import ContextInspector
from celery_stargate.operations.inspect import LaneInspector
from celery_stargate.operations.reading import reader_of
from celery_stargate.operations.views import ContextView, LaneView
from celery_stargate.support.bound import call_bound

__all__ = [
    "ContextView",
    "Entry",
    "Found",
    "LaneView",
    "Recorded",
    "current_stargate",
    "find_contexts",
    "freeze_callbacks",
    "frozen_arguments",
    "is_eager",
    "may_pass",
    "memory_policy",
    "note_started",
    "pending_in",
    "prepare",
    "record",
    "refusal",
    "require_redis",
    "survey",
    "trigger",
]


@dataclass(frozen=True, slots=True)
class Found:
    """What Redis knows of a context."""

    #: ``forgotten``: its lane had too many tombstones to keep all, so it may have ended.
    where: Literal["pending", "ended", "forgotten", "absent"]
    #: Seconds since it ended, where it has.
    ended_for: float = 0.0


def current_stargate() -> Stargate:
    """Return the Stargate of the current Celery app.

    Raises:
        ConfigurationError: the app has none.
    """
    return Stargate.of(current_app)


@dataclass(frozen=True, slots=True)
class Entry:
    """One message, checked and ready for its lane.

    Arguments:
        timeout: seconds until the deadline; None for the topic's ``delivery_timeout``.
    """

    call: Call
    message: Message
    timeout: float | None = None

    @property
    def context(self) -> str:
        """The id that Pulsar echoes."""
        return self.call.context

    @property
    def topic(self) -> str:
        """The topic's full name."""
        return str(self.call.topic)

    @property
    def lane(self) -> str:
        """The name of its lane."""
        return self.call.parts[0].lane.name


@dataclass(slots=True)
class Recorded:
    """What became of entries: those in a lane, and those whose lane is full."""

    lanes: dict[str, list[str]] = field(default_factory=dict)
    full_topics: set[str] = field(default_factory=set)


def prepare(
    stargate: Stargate,
    message: object,
    context: str,
    topic: str | None,
    timeout: float | None = None,
) -> Entry:
    """Check one message whole.

    Raises:
        InvalidMessage: the message or the topic cannot be published, or it is a list.
        ConfigurationError: there is no topic or no service URL.
    """
    messages, is_list = check_messages(message)
    if is_list:
        # One row, one message; the text is that of produce_many.
        check_messages([messages])
    call = stargate.runtime.preparation(topic).call(messages[0], context)
    return Entry(call, messages[0], timeout)


#: How many tombstones a lane keeps: as in ``common.lua``; a test compares them.
_MAX_TOMBSTONES = 100_000


def is_eager(stargate: Stargate) -> bool:
    """Whether messages are published at once, by ``task_always_eager``."""
    return eager.is_eager(stargate.runtime)


def freeze_callbacks(stargate: Stargate, on_ack: object, on_error: object) -> tuple[str, str]:
    """Return both callbacks as JSON with all task ids decided; an empty text for none.

    Raises:
        InvalidMessage: one is no signature, or JSON cannot carry it.
    """
    frozen = Callbacks.freeze(on_ack, on_error, stargate.app)
    return frozen.on_ack or "", frozen.on_error or ""


def trigger(stargate: Stargate, packed: str, outcome: dict[str, Any], task_id: str) -> None:
    """Publish a frozen callback with an outcome.

    Raises:
        kombu.exceptions.OperationalError: the broker did not take it.
        Exception: what Celery raises for a callback that it cannot publish; :func:`may_pass` tells.
    """
    signature: Any = maybe_signature(unpack(packed), app=stargate.app)
    options: dict[str, Any] = {}
    # A group, chain or chord has its ids already.
    if signature.get("subtask_type") is None and "task_id" not in signature["options"]:
        options["task_id"] = task_id
    signature.apply_async((outcome,), **options)


def note_started(stargate: Stargate, headers: Iterable[Mapping[str, Any]]) -> None:
    """Tell of callbacks that no worker runs that they have started.

    Arguments:
        headers: of the Celery messages that brought them.

    Raises:
        StoreUnavailable: Redis did not answer: they are published again.
    """
    ids = [task_id for each in headers if isinstance(task_id := each.get(STARTED_HEADER), str)]
    if ids:
        stargate.runtime.unstarted.started(*ids)


def may_pass(error: Exception) -> bool:
    """Whether it helps to publish a callback again later, which raised this."""
    return kind_of(error) is Kind.PASSING


def refusal(context: str, topic: str, code: str, reason: str, *, unknown: bool = False) -> Any:
    """Return a failure as callbacks get it."""
    return Failure(
        context=context,
        topic=topic,
        status="unknown" if unknown else "refused",
        code=code,
        reason=reason,
    ).to_dict()


def record(
    stargate: Stargate,
    entries: Iterable[Entry],
    on_outcome: Any,
    *,
    remember: float,
) -> Recorded:
    """Put entries into their lanes, in order, each once for its context.

    In eager mode they are published at once, and ``on_outcome`` runs in this thread.

    Arguments:
        on_outcome: the signature of the task that gets each receipt or failure.
        remember: seconds for which Redis knows an ended context, so that it is not sent again.

    Raises:
        StoreUnavailable: Redis did not answer: some may be recorded. Putting them again is
            harmless.
    """
    recorded = Recorded()
    callbacks = Callbacks.freeze(on_outcome, on_outcome, stargate.app)
    if is_eager(stargate):
        for entry in entries:
            recorded.lanes.setdefault(entry.lane, []).append(entry.context)
            eager.produce(stargate.runtime, entry.call, CallOptions(callbacks, entry.timeout))
        return recorded
    by_topic: dict[str, list[Entry]] = {}
    for entry in entries:
        by_topic.setdefault(entry.topic, []).append(entry)
    for topic, some in by_topic.items():
        fitting = list(_fitting(stargate, some, recorded))
        for timeout, group in groupby(fitting, key=lambda entry: entry.timeout):
            together = list(group)
            try:
                _put(stargate, together, timeout, callbacks, remember)
            except LaneFull:
                # Others took the room since it was counted. Later groups keep their order.
                recorded.full_topics.add(topic)
                break
            for entry in together:
                recorded.lanes.setdefault(entry.lane, []).append(entry.context)
    return recorded


def _fitting(stargate: Stargate, entries: Sequence[Entry], recorded: Recorded) -> Iterator[Entry]:
    """Yield what the backlog's limit allows; of a full lane nothing more, so order is kept."""
    limit = entries[0].call.options.max_backlog
    room: dict[str, int] = {}
    for entry in entries:
        if limit:
            if entry.lane not in room:
                held = stargate.runtime.outbox.backlog(entry.call.parts[0].lane)
                room[entry.lane] = limit - held
            if room[entry.lane] <= 0:
                recorded.full_topics.add(entry.topic)
                continue
            room[entry.lane] -= 1
        yield entry


def _put(
    stargate: Stargate,
    entries: Sequence[Entry],
    timeout: float | None,
    callbacks: Callbacks,
    remember: float,
) -> None:
    """Record messages to one topic.

    Raises:
        LaneFull: a lane would hold more than it may; nothing was recorded.
        StoreUnavailable: Redis did not answer.
    """
    calls = [entry.call for entry in entries]
    stargate.runtime.recorder.put_many(
        calls,
        [call.record(callbacks) for call in calls],
        calls[0].options.delivery_timeout if timeout is None else timeout,
        tombstone=remember,
    )


def find_contexts(
    stargate: Stargate, places: Sequence[tuple[str, str]], *, remember: float
) -> list[Found]:
    """Say of each context whether its lane holds it, or it has ended, as far as Redis knows.

    Arguments:
        places: lane's name and context of each.
        remember: as it was when they were recorded.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    prefix = stargate.settings.keyspace
    names = list(dict.fromkeys(name for name, _ in places))
    with call_bound(), store_errors(), _pipeline(stargate) as pipeline:
        pipeline.time()
        for name, context in places:
            lane = Lane.parse(name)
            # In this order: what ends in between is found in one of them.
            pipeline.hexists(lane.key(prefix, "contexts"), context)
            pipeline.zscore(lane.key(prefix, "tombstones"), context)
        # After the others: what was forgotten meanwhile left as many.
        for name in names:
            pipeline.zcard(Lane.parse(name).key(prefix, "tombstones"))
        (seconds, micros), *answers = pipeline.execute()
    counts = dict(zip(names, answers[2 * len(places) :], strict=True))
    now = seconds + micros / 1e6
    found = []
    for place, (name, _) in enumerate(places):
        held, until = answers[2 * place : 2 * place + 2]
        if held:
            found.append(Found("pending"))
        elif until is None:
            # Those that end first are forgotten first: while a forgotten one would still count,
            # the lane has as many as it keeps.
            full = counts[name] >= _MAX_TOMBSTONES
            found.append(Found("forgotten" if full else "absent"))
        else:
            found.append(Found("ended", max(0.0, now + remember - until / 1000)))
    return found


def survey(stargate: Stargate) -> tuple[int, list[LaneView]]:
    """Return how many producer workers are alive, and all lanes.

    Raises:
        StoreUnavailable: Redis did not answer.
    """
    with call_bound(), store_errors():
        lanes, workers = LaneInspector(reader_of(stargate.runtime)).lanes_and_workers()
    return workers, lanes


def pending_in(stargate: Stargate, lane: str, most: int) -> list[ContextView]:
    """Return the contexts of a lane that are not finished, the next deadline first.

    Arguments:
        lane: its name.
        most: how many at most.

    Raises:
        StoreUnavailable: Redis did not answer.
        ValueError: it is not the name of a lane.
    """
    topic = Lane.parse(lane).topic
    with call_bound(), store_errors():
        found = ContextInspector(reader_of(stargate.runtime)).pending(topic)
        return list(islice((each for each in found if each.lane == lane), most))


def require_redis(stargate: Stargate) -> None:
    """Check that a Redis for the lanes is configured; nothing is connected.

    Raises:
        ConfigurationError: there is none, or Celery cannot read its URL or options.
    """
    stargate.runtime.redis  # noqa: B018  # it raises


def memory_policy(stargate: Stargate) -> str:
    """Return Redis' ``maxmemory-policy``; an empty text if Redis does not tell.

    Of the masters of a Cluster, one that evicts decides.

    Raises:
        StoreUnavailable: Redis did not answer, or its user may not ask.
    """
    with call_bound(), store_errors():
        servers = servers_of(stargate.runtime.connections.sync())
        policies = [
            str(server.info("memory").get("maxmemory_policy", "")) for server in servers.values()
        ]
    return next((each for each in policies if each not in ("", "noeviction")), policies[0])


def _pipeline(stargate: Stargate) -> Any:
    return stargate.runtime.connections.sync().pipeline(transaction=False)
