"""The seam to the lanes: rows in Redis, each context once."""

from __future__ import annotations

import pytest

from celery_stargate import StoreUnavailable
from celery_stargate.contrib.django import lanes
from celery_stargate.contrib.django.closing import close_signature
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.scripts import lane_script
from celery_stargate.model.outcome import Receipt
from tests.django_project.rig import OutboxRig

pytestmark = pytest.mark.parametrize("using", ["default"], indirect=True)


def entry(rig: OutboxRig, context: str, payload: str = "x", key: str | None = None) -> lanes.Entry:
    return lanes.prepare(rig.stargate, {"payload": payload, "key": key}, context, None)


def put(rig: OutboxRig, *contexts: str, remember: float = 60.0) -> lanes.Recorded:
    return lanes.record(
        rig.stargate,
        [entry(rig, each) for each in contexts],
        close_signature(rig.using),
        remember=remember,
    )


def end(rig: OutboxRig, context: str) -> None:
    """Settle and finish a context, as an owner does."""
    lane, outbox = Lane(rig.topic), rig.stargate.runtime.outbox
    settled = outbox.settle(lane, Receipt(context=context)).settled
    assert settled is not None
    outbox.finish(lane, [settled])


def where(rig: OutboxRig, *contexts: str, remember: float = 60.0) -> list[str]:
    lane = f"{rig.topic}#0"
    found = lanes.find_contexts(
        rig.stargate, [(lane, each) for each in contexts], remember=remember
    )
    return [each.where for each in found]


def test_a_repeat_is_the_same_context(rig: OutboxRig) -> None:
    assert put(rig, "a", "b").lanes == {f"{rig.topic}#0": ["a", "b"]}
    assert put(rig, "b", "c").lanes == {f"{rig.topic}#0": ["b", "c"]}
    assert [context for context, _ in rig.in_lane()] == ["a", "b", "c"]


def test_an_ended_context_is_not_sent_again_while_redis_remembers_it(rig: OutboxRig) -> None:
    put(rig, "a", "b")
    end(rig, "a")
    assert where(rig, "a", "b", "c") == ["ended", "pending", "absent"]
    put(rig, "a", "b")
    assert [context for context, _ in rig.in_lane()] == ["b"]


def test_what_a_lane_may_have_forgotten_is_told(
    rig: OutboxRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane keeps so many tombstones; while it has fewer, an unknown context was never there."""
    assert f"MAX_TOMBSTONES, FORGOTTEN = {lanes._MAX_TOMBSTONES}," in lane_script("finish")
    put(rig, "a", "b")
    end(rig, "a")
    monkeypatch.setattr(lanes, "_MAX_TOMBSTONES", 2)
    assert where(rig, "a", "b", "c") == ["ended", "pending", "absent"]
    monkeypatch.setattr(lanes, "_MAX_TOMBSTONES", 1)
    assert where(rig, "a", "b", "c") == ["ended", "pending", "forgotten"]


def test_how_long_ago_a_context_ended(rig: OutboxRig) -> None:
    put(rig, "a", remember=60.0)
    end(rig, "a")
    lane = f"{rig.topic}#0"
    (found,) = lanes.find_contexts(rig.stargate, [(lane, "a")], remember=60.0)
    assert 0.0 <= found.ended_for < 30.0
    (found,) = lanes.find_contexts(rig.stargate, [(lane, "a")], remember=100.0)
    assert 40.0 <= found.ended_for < 70.0


def test_an_outcome_triggers_the_closing_task(rig: OutboxRig) -> None:
    """Both a receipt and a failure do, with the database's alias."""
    put(rig, "a")
    lane = Lane(rig.topic)
    settled = rig.stargate.runtime.outbox.settle(lane, Receipt(context="a")).settled
    assert settled is not None and settled.record.on_ack is not None
    assert "celery_stargate.outbox.close" in settled.record.on_ack
    assert settled.record.on_ack == settled.record.on_error
    assert '"using": "default"' in settled.record.on_ack


def test_topics_and_timeouts_keep_the_order_of_each_topic(rig: OutboxRig) -> None:
    others = f"{rig.topic}-others"
    entries = [
        lanes.prepare(rig.stargate, f"{n}", f"c{n}", others if n % 2 else None, timeout)
        for n, timeout in enumerate([None, 5.0, 7.0, None, None, 5.0])
    ]
    lanes.record(rig.stargate, entries, close_signature("default"), remember=60.0)
    assert rig.payloads() == ["0", "2", "4"]
    assert rig.payloads(others) == ["1", "3", "5"]


def test_a_full_lane_takes_what_fits(rig: OutboxRig) -> None:
    """And nothing behind it, so that the order is kept."""
    rig.stargate.app.conf.stargate_max_backlog = 2
    recorded = put(rig, "a", "b", "c", "d")
    assert recorded.lanes == {f"{rig.topic}#0": ["a", "b"]}
    assert recorded.full_topics == {rig.topic}


def test_lanes_are_surveyed(rig: OutboxRig) -> None:
    put(rig, "a", "b")
    workers, views = lanes.survey(rig.stargate)
    assert workers == 0
    (view,) = views
    assert (view.lane, view.backlog, view.contexts, view.owner) == (f"{rig.topic}#0", 2, 2, None)
    assert view.next_deadline_seconds is not None and view.next_deadline_seconds > 3600
    assert lanes.memory_policy(rig.stargate) == "noeviction"


def test_a_redis_that_is_away_is_told(using: str) -> None:
    with OutboxRig(using, "redis://127.0.0.1:1/0") as rig:
        with pytest.raises(StoreUnavailable):
            put(rig, "a")
        with pytest.raises(StoreUnavailable):
            where(rig, "a")
        rig.redis.close()
        rig.redis = type("Nothing", (), {"scan_iter": lambda *a, **k: [], "close": lambda s: 0})()
