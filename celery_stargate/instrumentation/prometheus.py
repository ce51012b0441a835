"""Metrics of the lanes for Prometheus, read from Redis at each scrape.

The figure to alert on is ``stargate_oldest_message_age_seconds``. Topics are labels, and
are bounded; there is no label for hosts, processes or contexts.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from celery_stargate.operations.views import LaneView

__all__ = ["LaneCollector", "OwnedCollector", "TopicLabels"]

#: The label of all topics beyond the bound.
_OTHER = "other"

#: What one scrape reads: all lanes, and how many workers are alive.
Read = Callable[[], tuple[Sequence[LaneView], int]]


class TopicLabels:
    """The labels of topics: the first ones have their own, all others are one.

    Arguments:
        most: how many have their own.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, topic: str) -> str:
        """Return the label of a topic."""
        if topic not in self._known:
            if len(self._known) >= self._most:
                return _OTHER
            self._known.add(topic)
        return topic


class _Lives:
    """Tells which lanes were forgotten after they were idle for long, and began at 0 again.

    What a lane recorded falls else only where Redis lost its latest writes, by a little.
    """

    def __init__(self) -> None:
        self._recorded: dict[str, int] = {}
        #: The lanes of the last look.
        self._there: set[str] = set()

    def begun_anew(self, lanes: Sequence[LaneView]) -> set[str]:
        """Return the names of those that began anew since the last look."""
        anew = set()
        for lane in lanes:
            name, recorded = lane.lane, lane.recorded_total
            before = self._recorded.get(name, 0)
            if recorded < before and (name not in self._there or 2 * recorded < before):
                anew.add(name)
                before = 0
            self._recorded[name] = max(before, recorded)
        self._there = {lane.lane for lane in lanes}
        return anew


class _Totals:
    """Counters by topic that never fall; a topic goes on counting when a lane begins anew."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._totals: dict[str, int] = defaultdict(int)

    def add(self, lane: str, topic: str, total: int, *, anew: bool) -> None:
        """Take what a lane counted since it began.

        One that was less than before while the lane went on changes nothing: what it counted was
        read while messages came and went.
        """
        seen = 0 if anew else self._seen.get(lane, 0)
        self._totals[topic] += max(0, total - seen)
        self._seen[lane] = max(seen, total)

    def items(self) -> Iterable[tuple[str, int]]:
        """Return topics and totals."""
        return sorted(self._totals.items())


class LaneCollector(Collector):
    """Reads the lanes when Prometheus asks.

    Arguments:
        read: reads them; it raises what redis-py raises.
        max_topics: how many topics get a label of their own; all others are one.
    """

    def __init__(self, read: Read, max_topics: int = 500) -> None:
        self._read = read
        #: Scrapes may overlap. A signal's handler may ask while its own thread does.
        self._lock = threading.RLock()
        #: Whether somebody is counting; what a handler reads then is not counted twice.
        self._counting = False
        self._labels = TopicLabels(max_topics)
        self._lives = _Lives()
        self._recorded = _Totals()
        self._sent = _Totals()
        self._done = _Totals()
        #: Known before they happen, so that Prometheus sees each rise.
        self._errors = Counter({"ConnectionError": 0, "TimeoutError": 0})

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering does not ask Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return all metrics; without Redis, that it is away."""
        # All at once: whoever stops half-way keeps no lock.
        with self._lock:
            again, self._counting = self._counting, True
            try:
                return iter(list(self._collect(count=not again)))
            finally:
                self._counting = again

    def _collect(self, *, count: bool) -> Iterator[Metric]:
        try:
            lanes, workers = self._read()
        except (RedisError, OSError) as error:
            self._errors[type(error).__name__] += 1
            yield self._up(0)
            yield self._error_count()
            return
        yield self._up(1)
        yield self._error_count()
        yield GaugeMetricFamily(
            "stargate_workers", "Processes that own lanes or may.", value=workers
        )
        yield GaugeMetricFamily(
            "stargate_lanes_without_owner",
            "Lanes that hold messages and have no owner.",
            value=sum(1 for lane in lanes if lane.needs_owner),
        )
        yield GaugeMetricFamily(
            "stargate_lanes_paused",
            "Lanes that an operator paused.",
            value=sum(1 for lane in lanes if lane.paused),
        )
        if count:
            self._count(lanes)
        yield from self._counters()
        yield from _gauges(lanes, self._labels)

    def _up(self, value: int) -> Metric:
        return GaugeMetricFamily("stargate_redis_up", "Whether Redis answers.", value=value)

    def _error_count(self) -> Metric:
        family = CounterMetricFamily(
            "stargate_redis_errors", "Calls that Redis did not answer.", labels=["error_type"]
        )
        for name, count in sorted(self._errors.items()):
            family.add_metric([name], count)
        return family

    def _count(self, lanes: Sequence[LaneView]) -> None:
        anew = self._lives.begun_anew(lanes)
        for lane in lanes:
            topic = self._labels.of(lane.topic)
            for totals, total in (
                (self._recorded, lane.recorded_total),
                (self._sent, lane.sent_total),
                (self._done, lane.done_total),
            ):
                totals.add(lane.lane, topic, total, anew=lane.lane in anew)

    def _counters(self) -> Iterator[Metric]:
        for name, about, totals in (
            ("stargate_recorded_messages", "Messages that callers recorded.", self._recorded),
            ("stargate_sent_messages", "Messages that were sent at least once.", self._sent),
            ("stargate_done_messages", "Messages that got their outcome.", self._done),
        ):
            family = CounterMetricFamily(name, about, labels=["topic"])
            for topic, total in totals.items():
                family.add_metric([topic], total)
            yield family


class OwnedCollector(Collector):
    """Reads the lanes that this process owns, when Prometheus asks.

    Each lane has one owner, so what all workers tell can be added up. A lane without an owner is
    told by none of them.

    Arguments:
        read: reads the lanes that are owned here; it raises what redis-py raises.
        max_topics: as for :class:`LaneCollector`.
    """

    def __init__(self, read: Callable[[], Sequence[LaneView]], max_topics: int = 500) -> None:
        self._read = read
        self._lock = threading.RLock()
        self._labels = TopicLabels(max_topics)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering does not ask Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the gauges; without Redis none."""
        with self._lock:
            try:
                lanes = self._read()
            except (RedisError, OSError):
                return iter(())
            return iter(list(_gauges(lanes, self._labels)))


def _gauges(lanes: Sequence[LaneView], labels: TopicLabels) -> Iterator[Metric]:
    by_topic: dict[str, list[LaneView]] = defaultdict(list)
    for lane in lanes:
        by_topic[labels.of(lane.topic)].append(lane)
    gauges: tuple[tuple[str, str, Callable[[list[LaneView]], float | None]], ...] = (
        (
            "stargate_backlog_messages",
            "Messages without a receipt.",
            lambda found: sum(lane.backlog for lane in found),
        ),
        (
            "stargate_in_flight_messages",
            "Messages that were sent and have no receipt.",
            lambda found: sum(lane.sent for lane in found),
        ),
        (
            "stargate_settled_contexts",
            "Contexts with an outcome whose result or callbacks are not done.",
            lambda found: sum(lane.settled for lane in found),
        ),
        (
            "stargate_dead_letters",
            "Messages that failed and are kept.",
            lambda found: sum(lane.dead for lane in found),
        ),
        (
            "stargate_oldest_message_age_seconds",
            "How long ago the oldest message without a receipt was recorded.",
            _oldest,
        ),
    )
    for name, about, value in gauges:
        family = GaugeMetricFamily(name, about, labels=["topic"])
        for topic, found in sorted(by_topic.items()):
            figure = value(found)
            if figure is not None:
                family.add_metric([topic], figure)
        yield family


def _oldest(lanes: Sequence[LaneView]) -> float | None:
    """Return the age of the oldest message; 0 for none, None if it is not known."""
    ages = [lane.oldest_age_seconds for lane in lanes if lane.oldest_age_seconds is not None]
    if ages:
        return max(ages)
    return None if any(lane.backlog for lane in lanes) else 0.0
