"""Metrics of a process: what is counted, under which labels, and that forks harm nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from celery_stargate import observers
from celery_stargate.instrumentation.counting import MessageMetrics, instrument
from celery_stargate.instrumentation.prometheus import OwnedCollector
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Receipt
from celery_stargate.observers import ConnectionLost, LaneTakenOver, MessageRecorded, Settlement
from tests.unit.instrumentation.test_prometheus import _Lanes, lane

#: What a worker serves.
NAMES = {
    "stargate_recorded_messages",
    "stargate_sent_messages",
    "stargate_outcomes",
    "stargate_receipt_duration_seconds",
    "stargate_reconnects",
    "stargate_takeovers",
    "stargate_redis_errors",
}
LABELS = {"topic", "outcome", "error_type"}
LANE = Lane("t")


def scrape(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Return what Prometheus reads: name and labels, by their names, to value."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = {name: each for name, each in sorted(sample.labels.items()) if name != "le"}
            assert set(labels) <= LABELS
            if not sample.name.endswith(("_created", "_bucket")):
                found[(sample.name, *labels.values())] = sample.value
    return found


@pytest.fixture
def metrics() -> Iterator[MessageMetrics]:
    """Metrics of a registry of their own."""
    made = instrument(CollectorRegistry(), max_topics=2)
    yield made
    made.remove()


def settled(seconds: float | None = None, **failure: Any) -> Settlement:
    outcome = Failure(context="c", **failure) if failure else Receipt(context="c")
    times = (None, None) if seconds is None else (1.0, 1.0 + seconds)
    return Settlement(outcome, None, *times)


def test_counts_all_that_happens(metrics: MessageMetrics) -> None:
    entries = [Entry(1, "a", b""), Entry(2, "b", b"")]
    of_list = MessageRecorded(context="c", topic="t", lanes=("t#0",), messages=3)
    outcomes = [settled(0.02), settled(0.5), settled(), settled(status="unknown", code="deadline")]
    lost = ConnectionLost(lane="t#0", topic="t", in_flight=1, reason="", error_type="LinkBroken")
    for happened in (
        lambda each: each.recorded([of_list, of_list]),
        lambda each: each.sent(LANE, entries),
        lambda each: each.settled(LANE, outcomes),
        lambda each: each.connection_lost(lost, []),
        lambda each: each.redis_failed(ConnectionError()),
    ):
        observers.tell(happened)
    for token in (1, 2):
        taken = LaneTakenOver(lane="t#0", topic="t", owner="me", fencing_token=token)
        observers.tell(lambda each, taken=taken: each.taken_over(taken))  # type: ignore[misc]
    found = scrape(metrics.registry)
    assert found == {
        ("stargate_recorded_messages_total", "t"): 6,
        ("stargate_sent_messages_total", "t"): 2,
        ("stargate_outcomes_total", "", "stored", "t"): 3,
        ("stargate_outcomes_total", "deadline", "unknown", "t"): 1,
        ("stargate_receipt_duration_seconds_count", "t"): 2,
        ("stargate_receipt_duration_seconds_sum", "t"): pytest.approx(0.52),
        ("stargate_reconnects_total", "LinkBroken", "t"): 1,
        # The first owner of a lane takes it from nobody.
        ("stargate_takeovers_total", "t"): 1,
        ("stargate_redis_errors_total", "ConnectionError"): 1,
    }
    served = {name.removesuffix("_total").removesuffix("_count") for name, *_ in found}
    assert served - {"stargate_receipt_duration_seconds_sum"} == NAMES


def test_a_second_call_changes_nothing() -> None:
    """As where an application is made again; after the end of the first a registry begins anew."""
    registry = CollectorRegistry()
    metrics = instrument(registry)
    assert instrument(registry) is metrics
    called = MessageRecorded(context="c", topic="t", lanes=("t#0",), messages=1)
    observers.tell(lambda each: each.recorded([called]))
    assert scrape(registry) == {("stargate_recorded_messages_total", "t"): 1}
    metrics.remove()
    again = instrument(registry)
    assert scrape(registry) == {}
    again.remove()


def test_durations_are_recorded_before_they_are_read(metrics: MessageMetrics) -> None:
    """A thread records them when no messages come; who scrapes meanwhile misses none."""
    for count in range(1, 4):
        metrics.sent(LANE, [Entry(count, "c", b"")])
        metrics.settled(LANE, [settled(0.02)] * 100)
        durations = ("stargate_receipt_duration_seconds_count", "t")
        assert scrape(metrics.registry)[durations] == 100 * count


def test_no_duration_is_left_out_where_too_many_wait(
    metrics: MessageMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics._waiting, "_limit", 0)  # noqa: SLF001
    metrics.settled(LANE, [settled(0.02)] * 3)
    assert scrape(metrics.registry)["stargate_receipt_duration_seconds_count", "t"] == 3


def test_topics_are_bounded(metrics: MessageMetrics) -> None:
    for topic in "abcdef":
        metrics.sent(Lane(topic), [Entry(1, "a", b"")])
    found = scrape(metrics.registry)
    assert {labels[0] for _, *labels in found} == {"a", "b", "other"}
    assert found["stargate_sent_messages_total", "other"] == 4


def test_the_lanes_of_this_worker_are_gauges() -> None:
    """Each lane has one owner: what all workers tell can be added up."""
    registry = CollectorRegistry()
    lanes = _Lanes(lane("t", backlog=3, unsent=1, sent=2, oldest_age_seconds=4.0, settled=1))
    registry.register(OwnedCollector(lambda: lanes.read()[0]))
    assert scrape(registry) == {
        ("stargate_backlog_messages", "t"): 3,
        ("stargate_in_flight_messages", "t"): 2,
        ("stargate_settled_contexts", "t"): 1,
        ("stargate_dead_letters", "t"): 0,
        ("stargate_oldest_message_age_seconds", "t"): 4,
    }
    lanes.lanes = None
    assert scrape(registry) == {}


# Coverage has locks of its own, which another thread may hold at the fork.
@pytest.mark.no_cover
def test_a_child_that_is_forked_while_a_thread_counts_can_count(metrics: MessageMetrics) -> None:
    """A lock of ``prometheus_client`` that a thread held at the fork would never be free."""
    ended = threading.Event()

    def count() -> None:
        while not ended.is_set():
            metrics.sent(LANE, [Entry(1, "a", b"")])

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(30):
            child = os.fork()
            if not child:
                metrics.sent(LANE, [Entry(1, "a", b"")])
                os._exit(0)
            waiting = threading.Timer(60.0, os.kill, (child, 9))
            waiting.start()
            _, status = os.waitpid(child, 0)
            waiting.cancel()
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        ended.set()
        thread.join()


def test_prefork_callers_count_together(tmp_path: Path) -> None:
    """``prometheus_client``'s multiprocess mode: parent and children are one figure."""
    program = """
import os
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from celery_stargate import observers
from celery_stargate.instrumentation.counting import instrument
from celery_stargate.observers import MessageRecorded
instrument()
def call():
    made = MessageRecorded(context="c", topic="t", lanes=("t#0",))
    observers.tell(lambda each: each.recorded([made]))
call()
for _ in range(3):
    child = os.fork()
    if not child:
        call()
        os._exit(0)
    os.waitpid(child, 0)
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert 'stargate_recorded_messages_total{topic="t"} 4.0' in ran.stdout
