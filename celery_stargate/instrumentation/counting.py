"""Metrics of this process for Prometheus: what its messages did, counted as it happens."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Sequence

from celery import signals
from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from celery_stargate import observers
from celery_stargate.instrumentation.prometheus import TopicLabels
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure
from celery_stargate.observers import (
    ConnectionLost,
    LaneTakenOver,
    MessageRecorded,
    Observer,
    Settlement,
)
from celery_stargate.support.fork_lock import ForkLock
from celery_stargate.support.paced import Paced

__all__ = ["MessageMetrics", "instrument"]

#: Seconds. Pulsar answers in milliseconds; after an outage a receipt takes as long as that was.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class _FlushFirst(Collector):
    """Has the durations recorded before they are read; it has no metrics of its own."""

    def __init__(self, durations: Paced[tuple[str, list[float]]]) -> None:
        self._durations = durations

    def collect(self) -> Iterable[Metric]:
        """Return nothing."""
        self._durations.flush()
        return ()


class MessageMetrics(Observer):
    """Counts what happens to messages in this process.

    It is safe where the process forks, and with ``prometheus_client``'s multiprocess mode. A thread
    records the durations while no messages come, or when somebody reads the registry: that takes
    longer than to count.

    Arguments:
        registry: gets the metrics.
        max_topics: how many topics get a label of their own; all others are one.
    """

    def __init__(self, registry: CollectorRegistry, max_topics: int = 500) -> None:
        self.registry = registry
        self._topics = TopicLabels(max_topics)
        self._lock = ForkLock()
        self._waiting: Paced[tuple[str, list[float]]] = Paced(self._record, "durations")
        #: To be registered before what reads the durations.
        self.flush_first = _FlushFirst(self._waiting)
        # A registry reads its metrics in the order in which they came.
        registry.register(self.flush_first)
        self._recorded = CounterMetric(
            "stargate_recorded_messages",
            "Messages that callers recorded.",
            ["topic"],
            registry=registry,
        )
        self._sent = CounterMetric(
            "stargate_sent_messages",
            "Messages that were written to Pulsar; again each time.",
            ["topic"],
            registry=registry,
        )
        self._outcomes = CounterMetric(
            "stargate_outcomes",
            "Messages that got their outcome.",
            ["topic", "outcome", "error_type"],
            registry=registry,
        )
        self._durations = Histogram(
            "stargate_receipt_duration_seconds",
            "From the send of a message to its outcome.",
            ["topic"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._reconnects = CounterMetric(
            "stargate_reconnects",
            "Connections to Pulsar that were lost or could not be made.",
            ["topic", "error_type"],
            registry=registry,
        )
        self._takeovers = CounterMetric(
            "stargate_takeovers",
            "Lanes that this process took, and that had another owner before.",
            ["topic"],
            registry=registry,
        )
        self._redis_errors = CounterMetric(
            "stargate_redis_errors",
            "Calls that Redis did not answer.",
            ["error_type"],
            registry=registry,
        )

    def recorded(self, calls: Sequence[MessageRecorded]) -> None:
        """Count the messages of calls."""
        topic = self._topics.of(calls[0].topic)
        with self._lock:
            self._recorded.labels(topic).inc(sum(each.messages for each in calls))

    def sent(self, lane: Lane, entries: Sequence[Entry]) -> None:
        """Count messages that are sent."""
        self._waiting.expect()
        with self._lock:
            self._sent.labels(self._topics.of(lane.topic)).inc(len(entries))

    def settled(
        self, lane: Lane, settlements: Sequence[Settlement], server: str | None = None
    ) -> None:
        """Count outcomes, and note how long they took."""
        topic = self._topics.of(lane.topic)
        counted: dict[tuple[str, str], int] = {}
        # Most outcomes are receipts: these are counted with less work.
        stored: dict[str, int] = {}
        for outcome, *_ in settlements:
            if isinstance(outcome, Failure):
                kind = outcome.status, outcome.code
                counted[kind] = counted.get(kind, 0) + 1
            else:
                stored[outcome.status] = stored.get(outcome.status, 0) + 1
        counted |= {(status, ""): count for status, count in stored.items()}
        with self._lock:
            for (status, error_type), count in counted.items():
                self._outcomes.labels(topic, status, error_type).inc(count)
        seconds = [
            answered_at - sent_at
            for _, _, sent_at, answered_at, _ in settlements
            if sent_at is not None and answered_at is not None
        ]
        if seconds and not self._waiting.offer((topic, seconds)):
            # None is left out where too many wait.
            self._record((topic, seconds))

    def _record(self, durations: tuple[str, list[float]]) -> None:
        topic, seconds = durations
        with self._lock:
            observe = self._durations.labels(topic).observe
            for each in seconds:
                observe(max(0.0, each))

    def taken_over(self, taken: LaneTakenOver) -> None:
        """Count a lane that had an owner before."""
        if taken.fencing_token > 1:
            with self._lock:
                self._takeovers.labels(self._topics.of(taken.topic)).inc()

    def connection_lost(
        self, lost: ConnectionLost, unanswered: Sequence[tuple[Entry, float | None]]
    ) -> None:
        """Count a lost connection."""
        with self._lock:
            self._reconnects.labels(self._topics.of(lost.topic), lost.error_type).inc()

    def redis_failed(self, error: Exception) -> None:
        """Count a call that Redis did not answer."""
        with self._lock:
            self._redis_errors.labels(type(error).__name__).inc()

    def flush(self, **_: object) -> None:
        """Record the durations that wait."""
        self._waiting.flush()

    def remove(self) -> None:
        """Count nothing more, and leave the registry."""
        _installed.pop(self.registry, None)
        observers.remove(self)
        atexit.unregister(self.flush)
        signals.worker_process_shutdown.disconnect(self.flush)
        self.flush()
        self.registry.unregister(self.flush_first)
        for each in (
            *(self._recorded, self._sent, self._outcomes, self._durations),
            *(self._reconnects, self._takeovers, self._redis_errors),
        ):
            self.registry.unregister(each)


#: What counts for each registry.
_installed: dict[CollectorRegistry, MessageMetrics] = {}


def instrument(registry: CollectorRegistry = REGISTRY, max_topics: int = 500) -> MessageMetrics:
    """Count what happens to messages in this process, and in children that it forks.

    Call it where the process starts, before it forks. A second call for a registry changes nothing.

    Arguments:
        registry: gets the metrics; by default the one that ``prometheus_client`` serves.
        max_topics: how many topics get a label of their own; all others are one.
    """
    found = _installed.get(registry)
    if found is not None:
        return found
    made = _installed[registry] = MessageMetrics(registry, max_topics)
    observers.add(made)
    # In multiprocess mode another process reads what this one counted to its end.
    atexit.register(made.flush)
    signals.worker_process_shutdown.connect(made.flush, weak=False)
    return made
