"""What lanes hold and who owns them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.registry import Registry
from celery_stargate.operations.inspect import LaneInspector, rates
from celery_stargate.operations.reading import OldestMessage, read_oldest
from tests.integration.lanes.rig import MakeOwner, put, receipt
from tests.servers.fixtures import ServerAddress


def heartbeat(url: str, prefix: str, worker: str, ttl: float = 60.0) -> None:
    async def beat() -> None:
        client = Connections(url).asyncio()
        await Registry(client, prefix).heartbeat(worker, ttl)
        await client.aclose()

    asyncio.run(beat())


def test_no_lane_is_an_empty_answer(lanes: LaneInspector) -> None:
    assert list(lanes.lanes()) == []
    status = lanes.status()
    assert (status.lanes, status.backlog, status.workers) == (0, 0, 0)
    assert status.oldest_age_seconds is None


def test_tells_what_is_unsent_and_what_was_sent(
    lanes: LaneInspector, outbox: Outbox, lane: Lane, make_owner: MakeOwner
) -> None:
    for context in "abcd":
        put(outbox, lane, context)
    owner = make_owner()
    owner.do(owner.store.read(0, 3, 1 << 20, mark=True))
    owner.do(owner.store.settle([("a", -1, receipt("a"))], "t"))
    [view] = lanes.lanes()
    assert (view.lane, view.topic, view.index) == (lane.name, lane.topic, 0)
    assert (view.backlog, view.unsent, view.sent) == (3, 1, 2)
    assert (view.contexts, view.settled) == (4, 1)
    assert (view.recorded_total, view.done_total) == (4, 1)
    assert view.owner == "owner"
    assert view.lease_seconds is not None
    assert 0 < view.lease_seconds <= 10
    assert not view.needs_owner


def test_a_lane_with_work_and_no_owner_needs_one(
    lanes: LaneInspector, outbox: Outbox, lane: Lane
) -> None:
    put(outbox, lane, "a")
    [view] = lanes.lanes()
    assert view.owner is None
    assert view.needs_owner
    assert lanes.status().lanes_without_owner == 1


@pytest.mark.parametrize("label", ["in the frame", "beside it"])
def test_computes_the_oldest_age_from_the_deadline(
    lanes: LaneInspector, outbox: Outbox, lane: Lane, label: str
) -> None:
    frame = b'{"payload":"","context":"a"}'
    messages = [("", frame)] if label == "in the frame" else [("a", b"whatever")]
    # The reader takes it for a call with 60 s.
    outbox.put(lane, Record("a"), messages, timeout=50.0)
    put(outbox, lane, "b", timeout=60.0)
    [view] = lanes.lanes()
    assert view.oldest_age_seconds == pytest.approx(10.0, abs=1.0)
    assert not view.oldest_age_exact
    assert view.next_deadline_seconds == pytest.approx(50.0, abs=1.0)


def test_reads_the_oldest_message_of_a_list(
    lanes: LaneInspector, outbox: Outbox, lane: Lane
) -> None:
    put(outbox, lane, "a", count=3, timeout=40.0)
    [view] = lanes.lanes()
    assert view.oldest_age_seconds == pytest.approx(20.0, abs=1.0)


def test_looks_again_if_the_oldest_message_is_done_meanwhile(
    lanes: LaneInspector,
    outbox: Outbox,
    lane: Lane,
    make_owner: MakeOwner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for context in "abc":
        put(outbox, lane, context, timeout=50.0)
    owner, left = make_owner(), list("ab")

    def read_late(entries: Any) -> OldestMessage | None:
        found = read_oldest(entries)
        if left:
            owner.do(owner.store.complete([left.pop(0)], [], "t" + "".join(left)))
        return found

    monkeypatch.setattr("celery_stargate.operations.inspect.read_oldest", read_late)
    [view] = lanes.lanes()
    assert left == []
    assert view.oldest_age_seconds == pytest.approx(10.0, abs=1.0)


def test_an_overdue_lane_has_a_negative_deadline(
    lanes: LaneInspector, outbox: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    put(outbox, lane, "a")
    client.zadd(lane.key(prefix, "deadlines"), {"a": 1.0})
    [view] = lanes.lanes()
    assert view.next_deadline_seconds is not None
    assert view.next_deadline_seconds < -1e9


def test_chooses_a_topic(lanes: LaneInspector, outbox: Outbox, lane: Lane) -> None:
    other = Lane(f"{lane.topic}-other")
    put(outbox, lane, "a")
    put(outbox, other, "b")
    assert [view.lane for view in lanes.lanes(other.topic)] == [other.name]
    assert len(list(lanes.lanes())) == 2


def test_shows_the_lane_of_contexts_while_it_holds_some(
    lanes: LaneInspector, outbox: Outbox
) -> None:
    outbox.put(CONTEXTS_LANE, Record("order-17"), [], timeout=60.0)
    [view] = lanes.lanes()
    assert (view.lane, view.contexts, view.backlog) == (CONTEXTS_LANE.name, 1, 0)


def test_looks_at_more_lanes_than_one_step_has(
    lanes: LaneInspector, outbox: Outbox, lane: Lane
) -> None:
    for index in range(45):
        put(outbox, Lane(lane.topic, index), f"c{index}")
    assert {view.index for view in lanes.lanes()} == set(range(45))
    assert lanes.status().backlog == 45


def test_lists_workers_alive_and_dead_with_their_lanes(
    lanes: LaneInspector,
    outbox: Outbox,
    lane: Lane,
    make_owner: MakeOwner,
    redis_server: ServerAddress,
    prefix: str,
) -> None:
    put(outbox, lane, "a")
    make_owner("gone")
    heartbeat(redis_server.url, prefix, "alive")
    found = {worker.worker: worker for worker in lanes.workers()}
    assert set(found) == {"alive", "gone"}
    assert found["alive"].lanes == 0
    assert (found["alive"].alive_seconds or 0) > 50
    assert (found["gone"].lanes, found["gone"].backlog) == (1, 1)
    assert found["gone"].alive_seconds is None
    assert lanes.status().workers == 1


def test_measures_rates_between_two_looks(
    lanes: LaneInspector, outbox: Outbox, lane: Lane, make_owner: MakeOwner
) -> None:
    put(outbox, lane, "a")
    before = lanes.status()
    for context in "bcde":
        put(outbox, lane, context)
    owner = make_owner()
    owner.do(owner.store.settle([(c, -1, receipt(c)) for c in "ab"], "t"))
    measured = rates(before, lanes.status(), 2.0)
    assert (measured.recorded_per_second, measured.done_per_second) == (2.0, 1.0)


def test_asks_only_what_reads(
    lanes: LaneInspector, outbox: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    put(outbox, lane, "a")
    keys = {key: client.object("idletime", key) for key in client.keys(f"{prefix}*")}
    before = {key: client.dump(key) for key in keys}
    lanes.status()
    lanes.workers()
    assert {key: client.dump(key) for key in client.keys(f"{prefix}*")} == before
