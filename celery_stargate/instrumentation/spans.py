"""Spans of a lane's owner: each message's send and settlement, made when its outcome is known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context

from celery_stargate.instrumentation.carriers import carrier_in, context_of, is_sampled
from celery_stargate.instrumentation.semantic import (
    DURATION,
    SENT,
    SYSTEM,
    Attribute,
    Operation,
)
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.observers import ConnectionLost, Observer, Settlement
from celery_stargate.support.fork_lock import ForkLock

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


class LaneSpans(Observer):
    """Makes the spans of messages that were sent by this process, with the times of each.

    A span is made when it has ended. So none is left open where a process dies or forks; what a
    process did not live to see is told by the one that takes its lane over.

    Arguments:
        tracer: makes the spans. Messages whose trace is not sampled get none.
        meter: gets the metrics.
    """

    def __init__(self, tracer: Tracer, meter: Meter) -> None:
        self._tracer = tracer
        self._lock = ForkLock()
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
        with self._lock:
            self._sent.add(len(entries), _common(Operation.SEND, lane.topic, None))

    def settled(
        self, lane: Lane, settlements: Sequence[Settlement], server: str | None = None
    ) -> None:
        """Make the spans of messages that have their outcomes."""
        now = time.monotonic()
        # Spans have the time of day.
        offset = time.time() - now
        for each in settlements:
            if each.seconds is not None:
                self._record(lane, each.seconds, each.outcome, server)
            carrier = each.trace if each.entry is None else carrier_in(each.entry.frame)
            if carrier is None or not is_sampled(carrier):
                continue
            parent = context_of(carrier)
            answered = now if each.answered_at is None else each.answered_at
            if each.sent_at is not None:
                attributes = _of_outcome(Operation.SEND, lane, each.outcome, server)
                times = each.sent_at + offset, answered + offset
                parent = self._span(parent, attributes, times, each.outcome)
            attributes = _of_outcome(Operation.SETTLE, lane, each.outcome, None)
            self._span(parent, attributes, (answered + offset, now + offset), each.outcome)

    def connection_lost(
        self, lost: ConnectionLost, unanswered: Sequence[tuple[Entry, float | None]]
    ) -> None:
        """Make the spans of sends that got no answer: these messages are sent again."""
        now = time.monotonic()
        offset = time.time() - now
        for entry, sent_at in unanswered:
            carrier = carrier_in(entry.frame)
            if carrier is None or sent_at is None or not is_sampled(carrier):
                continue
            attributes = attributes_of(Operation.SEND, lost.topic, entry.context, lost.server)
            attributes[Attribute.ERROR_TYPE] = lost.error_type
            times = sent_at + offset, now + offset
            self._span(context_of(carrier), attributes, times, lost.reason)

    def _record(self, lane: Lane, seconds: float, outcome: Outcome, server: str | None) -> None:
        attributes = _common(Operation.SEND, lane.topic, server)
        if isinstance(outcome, Failure):
            attributes = {**attributes, Attribute.ERROR_TYPE: outcome.code}
        with self._lock:
            self._duration.record(seconds, attributes)

    def _span(
        self,
        parent: Context,
        attributes: _Attributes,
        times: tuple[float, float],
        outcome: Outcome | str,
    ) -> Context:
        """Make a span that has ended, and return its context.

        Arguments:
            times: its begin and its end, in seconds.
            outcome: of its message; or the error, for people.
        """
        begin, end = (round(each * 1e9) for each in times)
        span = self._tracer.start_span(
            f"{attributes[Attribute.OPERATION_NAME]} {attributes[Attribute.DESTINATION]}",
            parent,
            SpanKind.CLIENT,
            attributes,
            start_time=begin,
        )
        if not isinstance(outcome, Receipt):
            reason = outcome.reason if isinstance(outcome, Failure) else outcome
            span.set_status(Status(StatusCode.ERROR, reason))
        span.end(max(begin, end))
        return set_span_in_context(span, parent)


def _of_outcome(operation: str, lane: Lane, outcome: Outcome, server: str | None) -> _Attributes:
    """Return the attributes of a span whose message has its outcome."""
    found = attributes_of(operation, lane.topic, outcome.context, server)
    if isinstance(outcome, Failure):
        found[Attribute.ERROR_TYPE] = outcome.code
        return found
    if outcome.message_id is not None:
        found[Attribute.MESSAGE_ID] = outcome.message_id
    if outcome.partition is not None and outcome.partition >= 0:
        found[Attribute.PARTITION] = str(outcome.partition)
    return found
