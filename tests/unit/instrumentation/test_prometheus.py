"""Metrics by topic: what they are called, and that counters never fall."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import ConnectionError as RedisConnectionError

from celery_stargate.instrumentation.prometheus import LaneCollector
from celery_stargate.operations.views import LaneView

NAMES = {
    "stargate_redis_up",
    "stargate_redis_errors",
    "stargate_workers",
    "stargate_lanes_without_owner",
    "stargate_lanes_paused",
    "stargate_recorded_messages",
    "stargate_sent_messages",
    "stargate_done_messages",
    "stargate_backlog_messages",
    "stargate_in_flight_messages",
    "stargate_settled_contexts",
    "stargate_dead_letters",
    "stargate_oldest_message_age_seconds",
}


class _Lanes:
    """What Redis has; it may be away."""

    def __init__(self, *lanes: LaneView) -> None:
        self.lanes: Sequence[LaneView] | None = lanes

    def read(self) -> tuple[Sequence[LaneView], int]:
        if self.lanes is None:
            raise RedisConnectionError
        return self.lanes, 2


def lane(topic: str, index: int = 0, **fields: Any) -> LaneView:
    usual: dict[str, Any] = {
        "lane": f"{topic}#{index}",
        "topic": topic,
        "index": index,
        "owner": "worker",
        "lease_seconds": 9.0,
        "backlog": 0,
        "unsent": 0,
        "sent": 0,
        "contexts": 0,
        "settled": 0,
        "recorded_total": 0,
        "sent_total": 0,
        "oldest_age_seconds": None,
        "oldest_age_exact": True,
        "next_deadline_seconds": None,
        "announced_seconds": 1.0,
    }
    return LaneView(**{**usual, **fields})


def scrape(collector: LaneCollector) -> dict[tuple[str, str], float]:
    """Return what Prometheus reads: name and topic to value."""
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.name in NAMES
        for sample in family.samples:
            assert set(sample.labels) <= {"topic", "error_type"}
            found[sample.name, "".join(sample.labels.values())] = sample.value
    return found


def test_has_a_figure_for_each_topic() -> None:
    lanes = _Lanes(
        lane("a", 0, backlog=3, unsent=1, sent=2, recorded_total=10, sent_total=9, contexts=3),
        lane("a", 1, backlog=1, sent=1, recorded_total=5, sent_total=5, oldest_age_seconds=7.0),
        lane("b", 0, owner=None, backlog=4, unsent=4, recorded_total=4, settled=2),
        lane("empty"),
    )
    found = scrape(LaneCollector(lanes.read))
    assert found["stargate_backlog_messages", "a"] == 4
    assert found["stargate_in_flight_messages", "a"] == 3
    assert found["stargate_recorded_messages_total", "a"] == 15
    assert found["stargate_sent_messages_total", "a"] == 14
    assert found["stargate_done_messages_total", "a"] == 11
    assert found["stargate_oldest_message_age_seconds", "a"] == 7.0
    assert found["stargate_oldest_message_age_seconds", "empty"] == 0.0
    # Not known is not 0.
    assert ("stargate_oldest_message_age_seconds", "b") not in found
    assert found["stargate_settled_contexts", "b"] == 2
    assert found["stargate_lanes_without_owner", ""] == 1
    assert found["stargate_workers", ""] == 2
    assert found["stargate_redis_up", ""] == 1
    assert {name.removesuffix("_total") for name, _ in found} == NAMES


def test_a_counter_never_falls() -> None:
    """A lane that was idle for long is forgotten, and begins at 0 when it is used again."""
    lanes = _Lanes(lane("a", 0, recorded_total=100), lane("a", 1, recorded_total=50))
    collector = LaneCollector(lanes.read)
    key = "stargate_recorded_messages_total", "a"
    assert scrape(collector)[key] == 150
    lanes.lanes = [lane("a", 0, recorded_total=110)]
    assert scrape(collector)[key] == 160
    lanes.lanes = [lane("a", 0, recorded_total=110), lane("a", 1, recorded_total=7)]
    assert scrape(collector)[key] == 167


def test_a_lane_that_is_read_while_callers_record_is_counted_once() -> None:
    """Its backlog and its last number are two reads, between which a message may come."""
    lanes = _Lanes(lane("a", recorded_total=50_000_001, backlog=0))
    collector = LaneCollector(lanes.read)
    key = "stargate_done_messages_total", "a"
    found = []
    for recorded, backlog in ((50_000_001, 0), (50_000_002, 2), (50_000_003, 1)):
        lanes.lanes = [lane("a", recorded_total=recorded, backlog=backlog)]
        found.append(scrape(collector)[key])
    assert found == [50_000_001, 50_000_001, 50_000_002]


def test_a_redis_that_lost_its_latest_writes_is_not_counted_anew() -> None:
    """After a failover a lane has recorded a little less. One that was forgotten has begun at 0."""
    lanes = _Lanes(lane("a", recorded_total=1000, sent_total=1000))
    collector = LaneCollector(lanes.read)
    keys = [(f"stargate_{name}_messages_total", "a") for name in ("recorded", "sent", "done")]
    found = []
    for recorded in (1000, 990, 1005, 400, 0, None, 300):
        lanes.lanes = [lane("b")]
        if recorded is not None:
            lanes.lanes = [lane("a", recorded_total=recorded, sent_total=recorded)]
        scraped = scrape(collector)
        assert len({scraped[key] for key in keys}) == 1
        found.append(scraped[keys[0]])
    assert found == [1000, 1000, 1005, 1405, 1405, 1405, 1705]
    lanes.lanes = []
    scrape(collector)
    lanes.lanes = [lane("a", recorded_total=200, sent_total=200)]
    assert scrape(collector)[keys[0]] == 1905


def test_a_signals_handler_may_scrape_while_its_thread_does() -> None:
    """It waits for nobody, and nothing is counted twice."""
    lanes = _Lanes(lane("a", recorded_total=5))
    key = "stargate_recorded_messages_total", "a"
    inner: list[float] = []

    def read() -> Any:
        if lanes.lanes == [lane("a", recorded_total=8)] and not inner:
            inner.append(0.0)
            # As a handler would that interrupts this scrape.
            inner[0] = scrape(collector)[key]
        return lanes.read()

    collector = LaneCollector(read)
    outer = []

    def twice() -> None:
        for total in (5, 8):
            lanes.lanes = [lane("a", recorded_total=total)]
            outer.append(scrape(collector)[key])

    thread = threading.Thread(target=twice, daemon=True)
    thread.start()
    thread.join(10.0)
    assert (outer, inner) == ([5, 8], [5])


def test_who_stops_half_way_keeps_no_lock() -> None:
    """What it began is done, so that the next one does not wait for it."""
    collector = LaneCollector(_Lanes(lane("a", recorded_total=5)).read)
    half = collector.collect()
    next(half)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(collector.collect()), daemon=True)
    thread.start()
    thread.join(10.0)
    assert found


def test_topics_are_bounded() -> None:
    lanes = _Lanes(*(lane(f"t{n}", backlog=1) for n in range(10)))
    collector = LaneCollector(lanes.read, max_topics=3)
    scrape(collector)
    found = scrape(collector)
    topics = {topic for name, topic in found if topic and "redis" not in name}
    assert topics == {"t0", "t1", "t2", "other"}
    assert found["stargate_backlog_messages", "other"] == 7


def test_tells_that_redis_is_away_and_goes_on_later() -> None:
    lanes = _Lanes(lane("a", recorded_total=5))
    collector = LaneCollector(lanes.read)
    lanes.lanes = None
    assert scrape(collector) == {
        ("stargate_redis_up", ""): 0,
        ("stargate_redis_errors_total", "ConnectionError"): 1,
        ("stargate_redis_errors_total", "TimeoutError"): 0,
    }
    lanes.lanes = [lane("a", recorded_total=5)]
    assert scrape(collector)["stargate_recorded_messages_total", "a"] == 5
