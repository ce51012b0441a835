"""Spans of a lane's owner: each message's send and settlement, made when its outcome is known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context

from celery_stargate.instrumentation.carriers import context_of, is_sampled, sampled_in
from celery_stargate.instrumentation.semantic import (
    DURATION,
    SENT,
    SYSTEM,
    Attribute,
    Operation,
)
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Outcome
from celery_stargate.observers import ConnectionLost, Observer, Settlement
from celery_stargate.support.fork_lock import ForkLock
from celery_stargate.support.paced import Paced
from celery_stargate.support.tracing import Carrier

__all__ = ["LaneSpans", "attributes_of"]

_Attributes = dict[str, str | int]

#: Seconds, as the conventions advise for the duration of an operation.
_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
_PORTS = {"ws": 80, "wss": 443}


def attributes_of(
    operation: str, topic: str, context: str, server: str | None = None
) -> _Attributes:
    """Return the attributes that all our spans have.

    Arguments:
        operation: one of :class:`Operation`.
        topic: the topic's full name.
        context: the id of the call; empty for many of them.
        server: Pulsar's service URL.
    """
    found = _common(operation, topic, server).copy()
    if context:
        found[Attribute.CONVERSATION_ID] = context
    return found


@lru_cache(maxsize=1024)
def _common(operation: str, topic: str, server: str | None) -> _Attributes:
    found: _Attributes = {
        Attribute.SYSTEM: SYSTEM,
        Attribute.OPERATION_NAME: operation,
        Attribute.OPERATION_TYPE: operation,
        Attribute.DESTINATION: topic,
    }
    if server is not None:
        parts = urlsplit(server)
        found[Attribute.SERVER_ADDRESS] = parts.hostname or ""
        found[Attribute.SERVER_PORT] = parts.port or _PORTS.get(parts.scheme, 0)
    return found


class _Traced(msgspec.Struct, frozen=True, gc=False):
    """A message whose spans are to be made."""

    carrier: Carrier | bytes
    topic: str
    outcome: Outcome
    server: str | None
    #: When it was sent, answered and settled, by the monotonic clock; None: that is no span.
    times: tuple[float | None, float, float | None]


class _Timed(NamedTuple):
    """Durations that are to be recorded."""

    seconds: list[float]
    attributes: _Attributes


class LaneSpans(Observer):
    """Makes the spans of messages that were sent by this process, with the times of each.

    A span is made when it has ended. So none is left open where a process dies or forks; what a
    process did not live to see is told by the one that takes its lane over. A thread makes them and
    records the durations, for a small part of the time: to make a span takes as long as all other
    work for a message.

    Arguments:
        tracer: makes the spans. Messages whose trace is not sampled get none.
        meter: gets the metrics.
    """

    def __init__(self, tracer: Tracer, meter: Meter) -> None:
        self._tracer = tracer
        self._lock = ForkLock()
        self._maker: Paced[_Traced | _Timed] = Paced(self._make, "spans")
        self._sent = meter.create_counter(
            SENT, "{message}", "Messages that a producer sent; again each time."
        )
        self._duration = meter.create_histogram(
            DURATION,
            "s",
            "From the send of a message to its outcome.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )

    def sent(self, lane: Lane, entries: Sequence[Entry]) -> None:
        """Count messages that are sent."""
        self._maker.expect()
        with self._lock:
            self._sent.add(len(entries), _common(Operation.SEND, lane.topic, None))

    def settled(
        self, lane: Lane, settlements: Sequence[Settlement], server: str | None = None
    ) -> None:
        """Make the spans of messages that have their outcomes."""
        now, topic = time.monotonic(), lane.topic
        traced: list[_Traced] = []
        seconds: dict[str, list[float]] = {}
        for outcome, entry, sent_at, answered_at, trace in settlements:
            if sent_at is not None and answered_at is not None:
                code = outcome.code if isinstance(outcome, Failure) else ""
                took = answered_at - sent_at if answered_at > sent_at else 0.0
                seconds.setdefault(code, []).append(took)
            carrier: Carrier | bytes | None
            if entry is not None:
                carrier = sampled_in(entry.frame)
            else:
                carrier = trace if trace is not None and is_sampled(trace) else None
            if carrier is not None:
                times = sent_at, now if answered_at is None else answered_at, now
                traced.append(_Traced(carrier, topic, outcome, server, times))
        common = _common(Operation.SEND, topic, server)
        for code, found in seconds.items():
            timed = _Timed(found, {**common, Attribute.ERROR_TYPE: code} if code else common)
            if not self._maker.offer(timed):
                # Spans may be dropped where too many wait; numbers may not.
                self._record(timed)
        if traced:
            self._maker.add(*traced)

    def connection_lost(
        self, lost: ConnectionLost, unanswered: Sequence[tuple[Entry, float | None]]
    ) -> None:
        """Make the spans of sends that got no answer: these messages are sent again."""
        now = time.monotonic()
        for entry, sent_at in unanswered:
            carrier = sampled_in(entry.frame)
            if carrier is not None and sent_at is not None:
                failure = Failure(context=entry.context, reason=lost.reason, code=lost.error_type)
                times = sent_at, now, None
                self._maker.add(_Traced(carrier, lost.topic, failure, lost.server, times))

    def flush(self) -> None:
        """Make the spans and record the durations that wait."""
        self._maker.flush()

    def _make(self, waiting: _Traced | _Timed) -> None:
        if isinstance(waiting, _Timed):
            self._record(waiting)
        else:
            self._trace(waiting)

    def _trace(self, traced: _Traced) -> None:
        """Make the spans of a message."""
        parent, outcome, topic = context_of(traced.carrier), traced.outcome, traced.topic
        # Spans have the time of day.
        offset = time.time() - time.monotonic()
        sent, answered, settled = (
            None if each is None else round((each + offset) * 1e9) for each in traced.times
        )
        assert answered is not None
        if sent is not None:
            attributes = _of_outcome(Operation.SEND, topic, outcome, traced.server)
            parent = self._span(parent, attributes, (sent, answered), outcome)
        if settled is not None:
            attributes = _of_outcome(Operation.SETTLE, topic, outcome, None)
            self._span(parent, attributes, (answered, settled), outcome)

    def _record(self, timed: _Timed) -> None:
        with self._lock:
            for each in timed.seconds:
                self._duration.record(each, timed.attributes)

    def _span(
        self,
        parent: Context,
        attributes: _Attributes,
        times: tuple[int, int],
        outcome: Outcome,
    ) -> Context:
        """Make a span that has ended, and return its context.

        Arguments:
            times: its begin and its end, in nanoseconds since the epoch.
            outcome: of its message.
        """
        begin, end = times
        span = self._tracer.start_span(
            f"{attributes[Attribute.OPERATION_NAME]} {attributes[Attribute.DESTINATION]}",
            parent,
            SpanKind.CLIENT,
            attributes,
            start_time=begin,
        )
        if isinstance(outcome, Failure):
            span.set_status(Status(StatusCode.ERROR, outcome.reason))
        span.end(max(begin, end))
        return set_span_in_context(span, parent)


def _of_outcome(operation: str, topic: str, outcome: Outcome, server: str | None) -> _Attributes:
    """Return the attributes of a span whose message has its outcome."""
    found = attributes_of(operation, topic, outcome.context, server)
    if isinstance(outcome, Failure):
        found[Attribute.ERROR_TYPE] = outcome.code
        return found
    if outcome.message_id is not None:
        found[Attribute.MESSAGE_ID] = outcome.message_id
    if outcome.partition is not None and outcome.partition >= 0:
        found[Attribute.PARTITION] = str(outcome.partition)
    return found
