"""A paused topic sends nothing, loses nothing, and goes on."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate import Acknowledger, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.operations.audit import Audit, operator
from celery_stargate.operations.inspect import LaneInspector
from celery_stargate.operations.pausing import Pauses
from celery_stargate.operations.reading import LaneReader
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import MakeOwner, put, receipt
from tests.integration.rig import read_back, record_only, wait_for


@pytest.fixture
def pauses(reader: LaneReader, prefix: str) -> Pauses:
    """What is tested."""
    return Pauses(reader, prefix)


def events(reader: LaneReader) -> list[tuple[bytes, bytes]]:
    """What the workers were told so far."""
    found = reader.redis.xrange(reader.registry.key("events"))
    return [item for _, fields in found for item in fields.items()]


def test_a_paused_topic_keeps_its_messages_in_order_until_it_is_resumed(
    make_app: MakeApp,
    local: LocalPulsar,
    pauses: Pauses,
    lanes: LaneInspector,
    reader: LaneReader,
    topic: str,
) -> None:
    app = make_app(local.url)
    stargate = Stargate.of(app)
    with Acknowledger(app):
        stargate.produce("first")
        assert pauses.pause(topic, 1, 60.0) == [f"{topic}#0"]
        [view] = lanes.lanes(topic)
        assert view.owner == f"paused by {operator()}"
        assert view.paused
        for n in range(10):
            record_only(stargate, f"paused {n}", f"c{n}", topic)
        # The worker finds out that it lost the lease, and says that it left the lane.
        wait_for(lambda: (b"free", topic.encode() + b"#0") in events(reader))
        assert lanes.status().unsent == 10
        assert pauses.resume(topic, 1) == [f"{topic}#0"]
        wait_for(lambda: lanes.status().backlog == 0)
    expected = [b"first", *(f"paused {n}".encode() for n in range(10))]
    assert read_back(local.url, topic, 11) == expected


def test_a_pause_fences_the_owner_and_its_receipts_count(
    pauses: Pauses, outbox: Outbox, lane: Lane, make_owner: MakeOwner, lanes: LaneInspector
) -> None:
    for context in "ab":
        put(outbox, lane, context)
    owner = make_owner()
    owner.do(owner.store.read(0, 1, 1 << 20, mark=True))
    pauses.pause(lane.topic, 1, 60.0)
    reply = owner.settle([("a", -1, receipt("a"))], "t")
    assert reply.fenced
    assert [settled.record.context for settled in reply.settled] == ["a"]
    assert not owner.do(owner.store.acquire())
    [view] = lanes.lanes()
    assert (view.unsent, view.settled) == (1, 1)


def test_a_pause_ends_by_itself(
    pauses: Pauses, outbox: Outbox, lane: Lane, make_owner: MakeOwner
) -> None:
    put(outbox, lane, "a")
    pauses.pause(lane.topic, 1, 0.05)
    owner = make_owner(acquire=False)
    wait_for(lambda: owner.do(owner.store.acquire()))


def test_pauses_all_lanes_known_or_not(
    pauses: Pauses, outbox: Outbox, lane: Lane, lanes: LaneInspector
) -> None:
    put(outbox, Lane(lane.topic, 7), "a")
    assert [name[-2:] for name in pauses.pause(lane.topic, 2, 60.0)] == ["#0", "#1", "#7"]
    # A pause again is a longer one.
    pauses.pause(lane.topic, 2, 600.0)
    views = list(lanes.lanes())
    # Those that nobody has used yet are seen, too.
    assert sorted(view.index for view in views) == [0, 1, 7]
    assert all(view.paused and (view.lease_seconds or 0) > 500 for view in views)
    assert lanes.status().lanes_paused == 3
    assert lanes.workers() == []
    assert len(pauses.resume(lane.topic, 2)) == 3


def test_resume_leaves_an_owner_alone(
    pauses: Pauses, outbox: Outbox, lane: Lane, make_owner: MakeOwner, lanes: LaneInspector
) -> None:
    put(outbox, lane, "a")
    make_owner("worker")
    assert pauses.resume(lane.topic, 1) == []
    [view] = lanes.lanes()
    assert view.owner == "worker"


def test_notes_who_paused(pauses: Pauses, lane: Lane, reader: LaneReader) -> None:
    pauses.pause(lane.topic, 1, 60.0)
    pauses.resume(lane.topic, 1)
    noted = Audit(reader.redis, reader.registry).last(10)
    assert [each.what for each in noted] == ["resume", "pause"]
    assert noted[0].details == {"topic": lane.topic, "lanes": 1}


def test_a_pause_that_ends_while_it_is_ended(
    pauses: Pauses, outbox: Outbox, lane: Lane, topic: str, reader: LaneReader
) -> None:
    """The lane is somebody's already: nobody is told that it is free."""
    put(outbox, lane, "a")
    assert pauses.pause(topic, 1, 60.0) == [lane.name]
    release, before = vars(pauses)["_release"], events(reader)

    def late(**given: Any) -> Any:
        reader.redis.delete(reader.key(lane, "lease"))
        return release(**given)

    vars(pauses)["_release"] = late
    assert pauses.resume(topic, 1) == []
    assert events(reader) == before
