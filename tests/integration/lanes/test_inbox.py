"""``lanes/inbox.py``: whatever an inbox holds, what can be read is read."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from celery_stargate.lanes.inbox import new_inbox
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.puts import follow_up_code
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.scripts import Scripts
from celery_stargate.lanes.wire import decode_call, encode_call
from celery_stargate.model.buckets import in_buckets
from celery_stargate.model.outcomes import CallOutcomes
from tests.integration.lanes.rig import Owner, inbox_key, receipt


def test_entries_of_a_wrong_form(lanes: Outbox, client: redis.Redis) -> None:
    """One without the fields, one that is no UTF-8, one of another sender: none hides the next."""
    key = inbox_key(lanes, "box")
    call = CallOutcomes("c", False, (receipt("c"),))
    client.xadd(key, {"hello": "1"})
    client.xadd(key, {b"to": b"\xff\xfe", b"outcome": b"\x00"})
    client.xadd(key, {b"to": b"box/1"})
    lanes.inboxes.notify("box/1", call)
    found = lanes.inboxes.subscribe("box", [], 1.0)
    assert [each.told for each in found] == [
        [("hello", b"1")],
        [("\ufffd\ufffd", b"\x00")],
        [("box/1", b"")],
        [("box/1", encode_call(call))],
    ]


@pytest.mark.parametrize("together", [True, False])
def test_calls_are_told_in_the_step_that_settles(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str, together: bool
) -> None:
    """One entry tells all calls of an inbox; of what has its outcome already it tells nothing.

    A process of a version before 0.2 has an inbox of another name, and reads one call in an entry.
    """
    name = new_inbox(prefix, lane.bucket(prefix))
    name = name if together else name.removesuffix("+")
    key = inbox_key(lanes, name)
    for context, number in (("a", 1), ("b", 2), ("late", 2), ("c", 2), ("d", 2)):
        record = Record(context, inbox=f"{name}/{number}")
        lanes.put(lane, record, [("", b'{"context":"%s"}' % context.encode())], timeout=60.0)
    entries = owner.do(owner.store.read(0, 100, 1 << 20, mark=True))
    assert [each.inbox for each in entries] == [f"{name}/{number}" for number in (1, 2, 2, 2, 2)]
    assert lanes.settle(lane, receipt("late")).settled is not None
    given = [(each, receipt(each.context)) for each in entries]
    # An inbox that is no stream begins anew, as for `notify`.
    client.set(key, "x")
    for _ in range(2):  # the answer was lost
        owner.do(owner.store.complete([], [], "token", given))
    found = lanes.inboxes.subscribe(name, [], 1.0)
    told = [[(address, contexts(wire)) for address, wire in each.told] for each in found]
    first, second = (f"{name}/1", ["a"]), (f"{name}/2", ["b", "c", "d"])
    assert told == ([[first, second]] if together else [[first], [second]])
    assert 3590 < client.ttl(key) <= 3600
    # As if each were told by itself.
    lanes.inboxes.notify(f"{name}/1", CallOutcomes("a", False, (receipt("a"),)))
    assert lanes.inboxes.subscribe(name, [], 1.0)[-1].told == found[0].told[:1]
    assert list(client.hkeys(lane.key(prefix, "contexts"))) == [b"late"]


def test_calls_of_many_inboxes(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str
) -> None:
    """Each inbox gets its own; an entry tells at most 100 calls."""
    boxes = [new_inbox(prefix, lane.bucket(prefix)) for _ in range(3)]
    puts = [(f"c{i}", boxes[i % 2]) for i in range(250)]
    # The one call of the third has its outcome already: nothing comes there.
    for context, box in [("late", boxes[2]), *puts]:
        record = Record(context, inbox=f"{box}/{context}")
        lanes.put(lane, record, [("", b'{"context":"%s"}' % context.encode())], timeout=60.0)
    assert lanes.settle(lane, receipt("late")).settled is not None
    entries = owner.do(owner.store.read(0, 1000, 1 << 20, mark=True))
    given = [(each, receipt(each.context)) for each in entries]
    owner.do(owner.store.complete([], [], "token", given))
    for place, box in enumerate(boxes[:2]):
        found = lanes.inboxes.subscribe(box, [], 1.0)
        assert [len(each.told) for each in found] == [100, 25]
        told = [one for each in found for one in each.told]
        expected = [context for context, own in puts if own == box]
        assert [address for address, _ in told] == [f"{box}/{each}" for each in expected], place
        assert [contexts(wire) for _, wire in told] == [[each] for each in expected]
    assert not client.exists(inbox_key(lanes, boxes[2]))


def contexts(wire: bytes) -> list[str]:
    """The contexts of the outcomes that one call is told."""
    return [each.context for each in decode_call(wire).outcomes]


@pytest.mark.parametrize("other", [0, 1])
def test_a_lane_of_another_bucket_is_told_by_itself(other: int) -> None:
    """A script's keys are all in one slot of a Cluster."""
    topics = Lane("persistent://public/default/x")
    prefix = in_buckets("p", 16)
    record = Record("c", inbox=f"{new_inbox(prefix, topics.bucket(prefix) + other)}/1")
    assert follow_up_code(prefix, topics, record)[0] == ("f" if other else "w")


def test_an_inbox_that_is_no_stream_begins_anew(lanes: Outbox, client: redis.Redis) -> None:
    """Whether it is read first or put into."""
    client.set(inbox_key(lanes, "box"), "x")
    assert lanes.inboxes.subscribe("box", [], 0.05) == []
    client.set(inbox_key(lanes, "box"), "x")
    lanes.inboxes.notify("box/1", CallOutcomes("c", False, (receipt("c"),)))
    assert addresses(lanes) == ["box/1"]


def test_an_inbox_that_was_begun_anew_meanwhile_is_kept(
    lanes: Outbox, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner puts an outcome between the read that failed and the step that deletes."""
    key, run = inbox_key(lanes, "box"), Scripts.run
    client.set(key, "x")

    def told_first(scripts: Scripts, *given: Any) -> Any:
        client.delete(key)
        lanes.inboxes.notify("box/1", CallOutcomes("c", False, (receipt("c"),)))
        return run(scripts, *given)

    monkeypatch.setattr(Scripts, "run", told_first)
    assert lanes.inboxes.subscribe("box", [], 0.05) == []
    assert addresses(lanes) == ["box/1"]


def test_inboxes_that_nobody_reads_any_more(lanes: Outbox, client: redis.Redis) -> None:
    """Are deleted; an outcome that comes late begins one anew, which ends as any does."""
    call = CallOutcomes("c", False, (receipt("c"),))
    for name in ("box", "kept"):
        lanes.inboxes.notify(f"{name}/1", call)
    lanes.inboxes.forget(["box", "never there"])
    assert client.exists(inbox_key(lanes, "box"), inbox_key(lanes, "kept")) == 1
    lanes.inboxes.notify("box/2", call)
    assert 0 < client.ttl(inbox_key(lanes, "box")) <= 3600
    assert addresses(lanes) == ["box/2"]


def test_an_id_far_ahead_hides_nothing(lanes: Outbox, client: redis.Redis) -> None:
    """Neither what comes next, nor what comes when the inbox begins anew."""
    call = CallOutcomes("c", False, (receipt("c"),))
    client.xadd(inbox_key(lanes, "box"), {"hello": "1"}, id="4611686018427387904-0")
    (junk,) = lanes.inboxes.subscribe("box", [], 1.0)
    lanes.inboxes.notify("box/1", call)
    (first,) = lanes.inboxes.subscribe("box", [junk.entry], 1.0)
    client.delete(inbox_key(lanes, "box"))
    lanes.inboxes.notify("box/2", call)
    (second,) = lanes.inboxes.subscribe("box", [first.entry], 1.0)
    assert [each.told[0][0] for each in (first, second)] == ["box/1", "box/2"]


def addresses(lanes: Outbox) -> list[str]:
    """The calls that the inbox `box` tells."""
    return [address for each in lanes.inboxes.subscribe("box", [], 1.0) for address, _ in each.told]
