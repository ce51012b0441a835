"""``lanes/view.py``: what ``celery inspect`` sees of the lanes that a worker owns."""

from __future__ import annotations

import pytest
import redis

from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.view import LaneView
from tests.integration.lanes.rig import MakeOwner, Owner, put
from tests.topology import Topology


@pytest.fixture
def view(topology: Topology, prefix: str) -> LaneView:
    """A view of all lanes."""
    return LaneView(Connections(topology.target), prefix)


def test_the_lanes_of_one_process(view: LaneView, make_owner: MakeOwner, lane: Lane) -> None:
    """Are those whose lease it holds; a lane of another, and one that is free, are left out."""
    others, free = Lane(f"{lane.topic}-other"), Lane(f"{lane.topic}-free")
    make_owner("host-17-abc")
    make_owner("host-18-abc", lane=others)
    lanes = [lane, others, free]
    assert view.owned(lanes, "host-17-") == [lane]
    assert view.owned(lanes, "host-18-") == [others]
    assert view.owned(lanes, "host-1-") == []
    assert view.owned([], "host-17-") == []


def test_calls_that_wait(view: LaneView, lanes: Outbox, lane: Lane, owner: Owner) -> None:
    """Come by their deadlines, and each tells whether it may have been sent."""
    put(lanes, lane, "first", timeout=50.0)
    owner.do(owner.store.read(0, 1, 1 << 20, mark=True))
    put(lanes, lane, "second", timeout=30.0)
    put(lanes, lane, "third", timeout=40.0)
    found = [(each.record.context, each.sent) for each in view.waiting(lane, 10)]
    assert found == [("second", False), ("third", False), ("first", True)]
    assert [each.record.context for each in view.waiting(lane, 2)] == ["second", "third"]
    assert view.waiting(Lane(f"{lane.topic}-empty"), 10) == []


def test_a_call_that_is_asked_for(view: LaneView, lanes: Outbox, lane: Lane) -> None:
    """Is found while it waits; of one that is not in the lane nothing is said."""
    put(lanes, lane, "here")
    assert [each.record.context for each in view.find(lane, ["gone", "here"])] == ["here"]
    assert view.find(lane, ["gone"]) == []
    assert view.find(lane, []) == []


def test_a_record_that_cannot_be_read(
    view: LaneView,
    lanes: Outbox,
    lane: Lane,
    client: redis.Redis,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Is logged and left out, and hides no other call."""
    put(lanes, lane, "good")
    client.hset(lane.key(prefix, "contexts"), "bad", "9 1 1\n{}")
    assert [each.record.context for each in view.find(lane, ["bad", "good"])] == ["good"]
    assert "unknown version" in caplog.text
