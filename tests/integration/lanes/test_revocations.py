"""``lanes/revocations.py``: what was not sent is failed; what is not there yet is remembered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from celery_stargate import StoreUnavailable
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.lanes.revocations import Revocations
from tests.integration.lanes.rig import Owner, put, receipt
from tests.topology import Topology


@pytest.fixture
def now() -> list[float]:
    """The time."""
    return [1000.0]


@pytest.fixture
def revocations(topology: Topology, prefix: str, now: list[float]) -> Revocations:
    """Revocations at that time."""
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    return Revocations(Connections(topology.target), prefix, clock=clock)


def test_what_became_of_each_context(
    revocations: Revocations, lanes: Outbox, lane: Lane, owner: Owner
) -> None:
    """Sent, sent in part, not sent, a list whose messages are elsewhere, and one not there."""
    put(lanes, lane, "sent")
    put(lanes, lane, "part", 3)
    owner.do(owner.store.read(0, 2, 1 << 20, mark=True))
    put(lanes, lane, "waits")
    lanes.put(lane, Record("list", is_list=True), [("", b"")] * 4, timeout=60.0)
    other = Lane(f"{lane.topic}-other")
    found = revocations.revoke([other, lane], ["sent", "part", "waits", "list", "unknown"])
    assert found.contexts == {"waits"}
    assert found.sent == {"sent", "part"}
    assert found.elsewhere == {"list": 4}
    [(at, [settled])] = found.settled.items()
    assert (at, settled.failure.code) == (lane, "revoked")
    again = revocations.revoke([lane], ["waits"])
    assert (again.settled, again.sent, again.elsewhere) == ({}, set(), {})


def test_the_rest_of_a_list(
    revocations: Revocations, lanes: Outbox, lane: Lane, owner: Owner
) -> None:
    """Leaves the log at once; the list ends when what was sent has its outcomes."""
    put(lanes, lane, "before")
    put(lanes, lane, "list", 5)
    put(lanes, lane, "behind")
    sent = owner.do(owner.store.read(1, 2, 1 << 20, mark=True))
    assert revocations.revoke([lane], ["list"]).sent == {"list"}
    numbers = [each.number for each in owner.do(owner.store.read(0, 10, 1 << 20, mark=False))]
    assert numbers == [1, 2, 3, 7]
    outcomes = [("list", each.place, receipt("list")) for each in sent]
    assert owner.settle(outcomes[:1], "one")[0] == []
    [settled] = owner.settle(outcomes[1:], "two")[0]
    found = [getattr(each, "code", "stored") for each in settled.outcomes]
    assert found == ["stored", "stored", "revoked", "revoked", "revoked"]


def test_one_message_and_none(
    revocations: Revocations, lanes: Outbox, lane: Lane, owner: Owner
) -> None:
    """The last one that was sent; a list of one elsewhere; and a context without a message."""
    put(lanes, lane, "sent")
    owner.do(owner.store.read(0, 1, 1 << 20, mark=True))
    lanes.put(lane, Record("list", is_list=True), [("", b"")], timeout=60.0)
    lanes.put(lane, Record("bare"), [], timeout=60.0)
    found = revocations.revoke([lane], ["sent", "list", "bare"])
    assert (found.sent, found.elsewhere, found.contexts) == ({"sent"}, {"list": 1}, {"bare"})


def test_nothing_to_revoke(revocations: Revocations, lane: Lane) -> None:
    """Is no error, and changes nothing."""
    assert revocations.revoke([], ["a"]).contexts == set()
    assert revocations.revoke([lane], []).contexts == set()


def test_a_lane_that_cannot_be_asked(
    revocations: Revocations, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    """Is an error: nobody may believe that the call is revoked."""
    put(lanes, lane, "a")
    client.delete(lane.key(prefix, "contexts"))
    client.set(lane.key(prefix, "contexts"), "x")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        revocations.revoke([lane], ["a"])


def test_a_record_that_cannot_be_read(
    revocations: Revocations,
    lanes: Outbox,
    lane: Lane,
    client: redis.Redis,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Is logged, and the others are revoked; a search goes on behind it."""
    put(lanes, lane, "good")
    key = lane.key(prefix, "contexts")
    stored = client.hget(key, "good")
    assert isinstance(stored, bytes)
    client.hset(key, "bad", stored.partition(b"\n")[0] + b"\nno record of good")
    assert [each.context for each, _ in revocations.pending(lane, b"good")] == ["good"]
    assert "damaged record" in caplog.text
    assert revocations.revoke([lane], ["bad", "good"]).contexts == {"good"}


def test_all_that_wait_are_searched(
    revocations: Revocations, lanes: Outbox, lane: Lane, topology: Topology
) -> None:
    """However many there are; only those with the text in them are returned."""
    puts = [(lane, Record(f"c{place}"), b'{"context":"c%d"}' % place) for place in range(1200)]
    lanes.put_many(puts, timeout=60.0)
    found = {record.context: first for record, first in revocations.pending(lane, b'"c11')}
    assert found == {f"c{place}": place + 1 for place in (11, *range(110, 120), *range(1100, 1200))}


def test_ids_are_remembered_for_a_day(revocations: Revocations, now: list[float]) -> None:
    """Their messages may come by the broker meanwhile."""
    revocations.remember(["a", "b"])
    now[0] += 86_399
    revocations.remember(["c"])
    assert [revocations.remembers(each) for each in "abcd"] == [True, True, True, False]
    now[0] += 2
    assert [revocations.remembers(each) for each in "abc"] == [False, False, True]


def test_stamps_are_remembered_for_a_day(revocations: Revocations, now: list[float]) -> None:
    """By header and value: the same value of another header is not revoked."""
    revocations.remember_stamps({"order": ["17", "18"]})
    assert revocations.remembers_stamps({"order": ["1", "18"], "shop": ["x"]})
    assert not revocations.remembers_stamps({"shop": ["17"]})
    assert not revocations.remembers_stamps({})
    now[0] += 86_401
    assert not revocations.remembers_stamps({"order": ["17"]})


def test_to_remember_nothing(revocations: Revocations, client: redis.Redis, prefix: str) -> None:
    """Asks Redis for nothing: ``ZADD`` without members would be an error."""
    revocations.remember([])
    revocations.remember_stamps({"order": []})
    assert not client.exists(RegistryKeys(prefix).key("revoked-stamps"))
