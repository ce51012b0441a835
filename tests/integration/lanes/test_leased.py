"""``lanes/owner.py``: the lease, and what only its holder may do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import redis

from celery_stargate.lanes import leased, scripts
from celery_stargate.lanes.connections import stream_entries
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import Fenced, LeasedLane, StoreRolledBack
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.wire import StoredEntry
from celery_stargate.model.dead_letters import DeadLetterRules
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import ResultRow
from celery_stargate.model.frame import encode_frame
from celery_stargate.model.message import Message
from tests.integration.lanes.rig import MakeOwner, Owner, failure, finish, put, receipt
from tests.integration.rig import Proxy, wait_for
from tests.servers.fixtures import ServerAddress
from tests.topology import single_server


def labels(owner: Owner, after: int = 0, **options: Any) -> list[str]:
    """The labels of the messages after a number."""
    options = {"count": 1000, "size": 1 << 30, "mark": False, **options}
    return [each.label for each in owner.do(owner.store.read(after, **options))]


class TestLease:
    """One owner at a time; each hold has a fencing token of its own."""

    def test_another_one_does_not_get_it(self, make_owner: MakeOwner) -> None:
        """Until it is given back."""
        first = make_owner("first")
        second = make_owner("second", acquire=False)
        assert not second.do(second.store.acquire())
        first.do(first.store.release())
        assert second.do(second.store.acquire())

    def test_a_tick_renews_it(
        self, make_owner: MakeOwner, client: redis.Redis, lane: Lane, prefix: str
    ) -> None:
        """And so does taking it once more."""
        owner = make_owner(lease=5.0)
        key = lane.key(prefix, "lease")
        client.pexpire(key, 1000)
        owner.do(owner.store.tick())
        assert client.pttl(key) > 4000
        client.pexpire(key, 1000)
        assert owner.do(owner.store.acquire())
        assert client.pttl(key) > 4000

    def test_it_ends_by_itself(self, make_owner: MakeOwner) -> None:
        """A dead owner's lane is free when its lease is over, and not before."""
        heir = make_owner("heir", acquire=False)
        make_owner("dead", lease=2.0)
        assert not heir.do(heir.store.acquire())
        assert wait_for(lambda: heir.do(heir.store.acquire()), 5.0)

    def test_that_of_a_process_that_has_ended_is_taken_at_once(
        self, make_owner: MakeOwner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Unless another process is faster: then the lane is that one's."""
        heir = make_owner("heir", acquire=False)
        make_owner("dead", lease=60.0)
        assert not heir.do(heir.store.acquire())
        monkeypatch.setattr(leased, "has_ended", lambda name: name == "dead")
        assert heir.do(heir.store.acquire())
        heir.do(heir.store.release())
        make_owner("dead", lease=60.0)
        faster, run = make_owner("faster", acquire=False), heir.store._run  # noqa: SLF001

        async def run_slowly(name: str, *arguments: Any) -> Any:
            reply = await run(name, *arguments)
            if name == "release":
                await asyncio.to_thread(lambda: faster.do(faster.store.acquire()))
            return reply

        monkeypatch.setattr(heir.store, "_run", run_slowly)
        assert not heir.do(heir.store.acquire())
        assert faster.do(faster.store.tick())

    def test_release_by_one_who_lost_it_changes_nothing(self, make_owner: MakeOwner) -> None:
        """The new owner keeps it."""
        old, new = _taken_over(make_owner)
        old.do(old.store.release())
        assert new.do(new.store.tick()).contexts == 0

    def test_the_same_process_taking_it_anew_is_another_hold(self, make_owner: MakeOwner) -> None:
        """The fencing token tells them apart, though the name is the same."""
        old, new = _taken_over(make_owner, "same", "same")
        with pytest.raises(Fenced):
            old.do(old.store.tick())
        assert new.do(new.store.tick())


class TestPause:
    """An owner stops its lane, so that nobody sends before an operator has looked."""

    def test_nobody_has_the_lane_until_it_ends(
        self, make_owner: MakeOwner, client: redis.Redis, lane: Lane, prefix: str
    ) -> None:
        """The lease names why, for as long as was asked, with a fencing token of its own."""
        owner, key = make_owner("owner"), lane.key(prefix, "lease")
        token = owner.store.fencing_token
        owner.do(owner.store.pause("a refusal", 30.0))
        assert client.get(key) == f"paused by a refusal:{token + 1}".encode()
        assert 25_000 < client.pttl(key) <= 30_000
        assert client.hget(lane.key(prefix, "meta"), "fencing_token") == str(token + 1).encode()
        heir = make_owner("heir", acquire=False)
        assert not heir.do(heir.store.acquire())
        with pytest.raises(Fenced):
            owner.do(owner.store.tick())

    def test_only_its_owner_can(
        self, make_owner: MakeOwner, client: redis.Redis, lane: Lane, prefix: str
    ) -> None:
        """One that lost the lease leaves that of the next owner alone."""
        old, _ = _taken_over(make_owner)
        lease = client.get(lane.key(prefix, "lease"))
        with pytest.raises(Fenced):
            old.do(old.store.pause("a refusal", 30.0))
        assert client.get(lane.key(prefix, "lease")) == lease


def _taken_over(make_owner: MakeOwner, old: str = "old", new: str = "new") -> tuple[Owner, Owner]:
    """An owner that was paused, and the one that took its lane."""
    first = make_owner(old)
    # What the end of its time does.
    first.do(first.store.release())
    return first, make_owner(new)


class TestFencing:
    """Whoever lost the lease settles nothing and is told so."""

    def test_tick_read_and_due_raise(
        self, make_owner: MakeOwner, lanes: Outbox, lane: Lane
    ) -> None:
        """It must drop what it holds and join again."""
        put(lanes, lane, "a")
        old, new = _taken_over(make_owner)
        with pytest.raises(Fenced):
            old.do(old.store.tick())
        with pytest.raises(Fenced):
            old.do(old.store.read(0, 1, 1000, mark=True))
        with pytest.raises(Fenced):
            old.do(old.store.due())
        assert new.do(new.store.progress()).sent == 0

    def test_its_errors_do_not_count(
        self, make_owner: MakeOwner, lanes: Outbox, lane: Lane
    ) -> None:
        """The new owner may be sending that message just now."""
        put(lanes, lane, "a")
        old, new = _taken_over(make_owner)
        settled, late, fenced = old.settle([("a", -1, failure("a"))], "t")
        assert (settled, late, fenced) == ([], frozenset({0}), True)
        assert labels(new) == ["a"]

    def test_its_receipts_do(self, make_owner: MakeOwner, lanes: Outbox, lane: Lane) -> None:
        """What Pulsar has, it has, whoever heard of it."""
        put(lanes, lane, "a")
        old, new = _taken_over(make_owner)
        settled, _, fenced = old.settle([("a", -1, receipt("a"))], "t")
        assert [each.record.context for each in settled] == ["a"]
        assert fenced
        assert labels(new) == []


class TestRead:
    """In order, within bounds."""

    def test_after_a_number(self, owner: Owner, lanes: Outbox, lane: Lane) -> None:
        """So that a session goes on where it was."""
        for context in "abcd":
            put(lanes, lane, context)
        assert labels(owner, 2) == ["c", "d"]
        assert labels(owner, 4) == []

    def test_it_gives_at_most_that_many(self, owner: Owner, lanes: Outbox, lane: Lane) -> None:
        """Also where the script takes several steps."""
        put(lanes, lane, "a", 100)
        assert labels(owner, count=70) == [f"a\t{place}" for place in range(70)]
        assert len(labels(owner, count=1000)) == 100

    def test_it_gives_at_most_that_many_bytes_and_one_message_always(
        self, owner: Owner, lanes: Outbox, lane: Lane
    ) -> None:
        """A large message must not block the lane."""
        for context in "abc":
            put(lanes, lane, context)
        one = len(b"frame a 0")
        assert labels(owner, size=1) == ["a"]
        assert labels(owner, size=2 * one - 1) == ["a"]
        assert labels(owner, size=2 * one) == ["a", "b"]
        assert labels(owner, size=100 * one) == ["a", "b", "c"]

    def test_with_the_mark_it_notes_what_may_have_been_sent(
        self, owner: Owner, lanes: Outbox, lane: Lane
    ) -> None:
        """Never less than before: a session that begins anew reads from the start."""
        for context in "abc":
            put(lanes, lane, context)
        labels(owner, mark=False)
        assert owner.do(owner.store.progress()).sent == 0
        labels(owner, count=2, mark=True)
        assert owner.do(owner.store.progress()).sent == 2
        labels(owner, count=1, mark=True)
        assert owner.do(owner.store.progress()).sent == 2

    def test_the_mark_outlives_the_owner(
        self, make_owner: MakeOwner, lanes: Outbox, lane: Lane
    ) -> None:
        """The next one must not say refused of what this one may have sent."""
        put(lanes, lane, "a")
        old = make_owner("old")
        labels(old, mark=True)
        old.do(old.store.release())
        new = make_owner("new")
        assert new.do(new.store.progress()).sent == 1

    def test_what_was_settled_was_not_tried_by_a_new_hold(
        self, make_owner: MakeOwner, lanes: Outbox, lane: Lane
    ) -> None:
        """It begins a generation of its own, under which nothing was sent yet."""
        put(lanes, lane, "a")
        old = make_owner("old")
        labels(old, mark=True)
        old.settle([("a", -1, receipt("a"))], "t")
        assert old.do(old.store.progress()).tried == 1
        old.do(old.store.release())
        new = make_owner("new")
        progress = new.do(new.store.progress())
        assert (progress.sent, progress.tried, progress.own) == (1, 0, True)

    def test_numbers_go_on_after_all_was_settled(
        self, owner: Owner, lanes: Outbox, lane: Lane
    ) -> None:
        """An entry's number is the lane's sequence number: it never comes back."""
        put(lanes, lane, "a", 2)
        owner.settle([("a", 0, receipt("a")), ("a", 1, receipt("a"))], "t")
        put(lanes, lane, "b")
        (entry,) = owner.do(owner.store.read(0, 10, 1000, mark=False))
        assert (entry.number, entry.label) == (3, "b")


class TestReadLarge:
    """Without Lua where nothing is amiss, and with the same result."""

    def test_it_gives_what_a_script_gives(
        self, owner: Owner, lanes: Outbox, lane: Lane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of all kinds, and within the same bounds."""
        put(lanes, lane, "a")
        put(lanes, lane, "b", 3)
        lanes.put(lane, Record("c", inbox="inbox/7"), [("c", b"frame c 0")], timeout=60.0)
        frame = encode_frame(Message(payload=b"x" * 2000), "d", 1 << 20)
        lanes.put(lane, Record("d", task="shop.orders"), [("", frame)], timeout=60.0)
        one = len(b"frame a 0")
        bounds = [(10, 1 << 20), (10, 2 * one), (10, 2 * one - 1), (1, 1 << 20), (10, 1)]
        expected = [owner.do(owner.store.read(0, count, size, mark=True)) for count, size in bounds]
        ran = _scripts_of(owner, monkeypatch)
        found = [owner.read_large(0, count, size) for count, size in bounds]
        assert found == expected
        assert ran == ["note"] * len(bounds)
        assert owner.read_large(2, 2, 1 << 20) == expected[0][2:4]

    def test_it_notes_what_may_have_been_sent(
        self, owner: Owner, lanes: Outbox, lane: Lane
    ) -> None:
        """Never less than before."""
        for context in "abc":
            put(lanes, lane, context)
        for count, sent in ((2, 2), (1, 2), (3, 3)):
            assert len(large(owner, count=count)) == count
            progress = owner.do(owner.store.progress())
            assert (progress.sent, progress.tried) == (sent, sent)

    def test_nothing_is_there(self, owner: Owner, lanes: Outbox, lane: Lane) -> None:
        """Behind the last one."""
        put(lanes, lane, "a")
        assert owner.read_large(1, 10, 1 << 20) == []

    @pytest.mark.parametrize(
        ("end", "left"),
        [
            ("expire", ["list\t0", "list\t1", "b"]),
            ("settle", ["list\t0", "list\t1", "b"]),
            ("settle a place", ["a", "list\t0", "b"]),
            ("finish", ["list\t0", "list\t1", "b"]),
            ("forget", ["list\t0", "list\t1", "b"]),
            ("put again", ["list\t0", "list\t1", "b", "a"]),
        ],
    )
    def test_what_ends_meanwhile_is_not_sent(
        self,
        owner: Owner,
        lanes: Outbox,
        lane: Lane,
        client: redis.Redis,
        prefix: str,
        monkeypatch: pytest.MonkeyPatch,
        end: str,
        left: list[str],
    ) -> None:
        """Between the look and the note; then a script reads the others."""
        put(lanes, lane, "a")
        put(lanes, lane, "list", 2)
        put(lanes, lane, "b")

        def meanwhile() -> None:
            match end:
                case "expire":
                    client.zadd(lane.key(prefix, "deadlines"), {"a": 1})
                    lanes.expire(lane)
                case "settle a place":
                    lanes.settle(lane, receipt("list"), place=1)
                case "forget":
                    client.hdel(lane.key(prefix, "contexts"), "a")
                case _:
                    lanes.settle(lane, receipt("a"))
                    if end != "settle":
                        finish(lanes, lane, "a")
                    if end == "put again":
                        put(lanes, lane, "a")

        _meanwhile(owner, monkeypatch, meanwhile)
        assert large(owner) == left
        assert labels(owner) == left
        assert owner.do(owner.store.progress()).sent == (5 if end == "put again" else 4)

    def test_what_cannot_be_read_is_told_apart_as_ever(
        self, owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
    ) -> None:
        """By a script: a frame, a place, an id or a record."""
        log, contexts = lane.key(prefix, "log"), lane.key(prefix, "contexts")
        put(lanes, lane, "a")
        client.xadd(log, {"f": b"secret"}, id="2-0")
        assert large(owner) == ["a"]
        assert owner.store.unreadable == [(2, "damaged")]
        client.xdel(log, "2-0")
        client.xadd(log, {"f": b"frame", "l": "a", "p": "x"}, id="3-0")
        client.xadd(log, {"f": b"frame", "l": "a"}, id="4-3")
        assert large(owner) == ["a"]
        assert owner.store.unreadable == [(3, "damaged"), (4, "damaged")]
        client.xdel(log, "3-0", "4-3")
        client.hset(contexts, "a", b"3" + client.hget(contexts, "a")[1:])  # type: ignore[index, operator]
        assert large(owner) == []
        assert owner.store.unreadable == [(1, "newer")]

    def test_nobody_else_reads(self, make_owner: MakeOwner, lanes: Outbox, lane: Lane) -> None:
        """One who lost the lease sends nothing."""
        put(lanes, lane, "a")
        old, new = _taken_over(make_owner)
        with pytest.raises(Fenced):
            large(old)
        assert large(new) == ["a"]

    def test_a_redis_that_came_back_with_an_older_state(
        self, owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
    ) -> None:
        """Is noticed before anything is noted."""
        put(lanes, lane, "a", 3)
        assert len(large(owner)) == 3
        client.hset(lane.key(prefix, "meta"), "sent", 2)
        with pytest.raises(StoreRolledBack):
            large(owner)
        assert client.hget(lane.key(prefix, "meta"), "sent") == b"2"

    def test_a_message_that_its_put_marked(
        self, owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
    ) -> None:
        """The owner knows by which put, as after a read by a script."""
        put(lanes, lane, "a")
        owner.store.expected = 2
        assert owner.complete(["a"], [], "t").late == frozenset()
        put(lanes, lane, "b")
        assert client.hget(lane.key(prefix, "meta"), "marked")
        assert large(owner) == ["b"]
        assert owner.do(owner.store.tick()).backlog == 1


def large(owner: Owner, **options: Any) -> list[str]:
    """The labels of messages that are read as large ones; by a script where that is needed."""
    options = {"count": 1000, "size": 1 << 30, **options}
    entries = owner.read_large(0, **options)
    return [each.label for each in entries] or labels(owner, mark=True, **options)


def _scripts_of(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the scripts that an owner runs from now on."""
    ran, run = [], owner.store._run  # noqa: SLF001

    async def noting(name: str, *arguments: Any, **options: Any) -> Any:
        ran.append(name)
        return await run(name, *arguments, **options)

    monkeypatch.setattr(owner.store, "_run", noting)
    return ran


def _meanwhile(owner: Owner, monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do something, once, after an owner has looked into the log, and before it notes anything."""
    client = owner.store._redis  # noqa: SLF001
    look, left = client.xrange, [do]

    async def looking(*arguments: Any, **options: Any) -> Any:
        found = await look(*arguments, **options)
        if left:
            await asyncio.to_thread(left.pop())
        return found

    monkeypatch.setattr(client, "xrange", looking)


class TestSettle:
    """Exactly one outcome for each context."""

    def test_outcomes_are_settled_in_one_call(
        self, owner: Owner, lanes: Outbox, lane: Lane
    ) -> None:
        """Receipts and failures; each leaves the log at once."""
        for context in "abc":
            put(lanes, lane, context)
        settled, late, fenced = owner.settle(
            [("a", -1, receipt("a")), ("c", -1, failure("c"))], "t"
        )
        assert [(each.record.context, each.failed) for each in settled] == [
            ("a", False),
            ("c", True),
        ]
        assert (late, fenced) == (frozenset(), False)
        assert labels(owner) == ["b"]

    @pytest.mark.parametrize("second", [receipt("a", 2), failure("a")])
    def test_the_second_outcome_is_late(
        self, owner: Owner, lanes: Outbox, lane: Lane, second: Any
    ) -> None:
        """Never two."""
        put(lanes, lane, "a")
        owner.settle([("a", -1, receipt("a", 1))], "first")
        assert owner.settle([("a", -1, second)], "second") == ([], frozenset({0}), False)
        (due,) = owner.do(owner.store.due(0))
        assert due.result["entry_id"] == 1

    def test_a_repeat_with_the_same_token_gets_the_same_answer(
        self, owner: Owner, lanes: Outbox, lane: Lane
    ) -> None:
        """The first answer may have been lost on the way."""
        put(lanes, lane, "a")
        put(lanes, lane, "b", 2)
        parts = [("a", -1, receipt("a")), ("b", 0, receipt("b")), ("b", 1, receipt("b"))]
        first, _, _ = owner.settle(parts, "t")
        again, _, _ = owner.settle(parts, "t")
        assert {each.record.context for each in first} == {"a", "b"}
        assert {each.record.context for each in again} == {"a", "b"}
        other, late, _ = owner.settle(parts, "u")
        assert (other, late) == ([], frozenset({0, 1, 2}))

    def test_a_failure_of_one_place_waits_for_the_others(
        self, owner: Owner, lanes: Outbox, lane: Lane
    ) -> None:
        """A list is one task with one result: it tells what became of each."""
        put(lanes, lane, "a", 3)
        settled, _, _ = owner.settle([("a", 1, failure("a"))], "1")
        assert settled == []
        assert labels(owner) == ["a\t0", "a\t2"]
        rest = [("a", 0, receipt("a", 0)), ("a", 2, receipt("a", 2))]
        ((done,), _, _) = owner.settle(rest, "2")
        assert [each.get("entry_id") for each in done.failure.outcomes or ()] == [0, None, 2]

    def test_a_lane_may_count_beyond_what_lua_writes_in_full(
        self, owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
    ) -> None:
        """Ten to the fourteenth and more: its entries are still found."""
        client.hset(lane.key(prefix, "meta"), "last", 123_456_789_012_344)
        put(lanes, lane, "a")
        put(lanes, lane, "b", 2)
        entries = owner.do(owner.store.read(0, 10, 1000, mark=True))
        assert [each.number for each in entries] == [123_456_789_012_345 + n for n in range(3)]
        assert owner.do(owner.store.progress()).sent == 123_456_789_012_347
        assert labels(owner, 123_456_789_012_345) == ["b\t0", "b\t1"]
        owner.settle([("a", -1, receipt("a")), ("b", -1, failure("b"))], "t")
        assert labels(owner) == []


class TestDue:
    """Effects that nobody has done."""

    def test_one_who_takes_over_finds_all_of_them_at_once(
        self, make_owner: MakeOwner, lanes: Outbox, lane: Lane
    ) -> None:
        """The last owner may have died between settling and the effects."""
        for context in "abc":
            put(lanes, lane, context)
        old = make_owner("old")
        parts = [(context, -1, receipt(context)) for context in "abc"]
        old.settle(parts, "t")
        old.do(old.store.release())
        new = make_owner("new")
        assert new.do(new.store.tick()).due == 3
        found = new.do(new.store.due(0))
        assert [each.record.context for each in found] == ["a", "b", "c"]
        assert [each.record.context for each in new.do(new.store.due(2))] == ["c"]
        assert new.do(new.store.due(3)) == []

    def test_else_they_are_left_to_the_one_who_settled_for_a_while(
        self, owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
    ) -> None:
        """And when that time is over they are claimed, so that they are found once."""
        put(lanes, lane, "a")
        lanes.settle(lane, receipt("a"))
        assert owner.do(owner.store.due()) == []
        client.zadd(lane.key(prefix, "due"), {"a": 1})
        assert [each.record.context for each in owner.do(owner.store.due())] == ["a"]
        assert owner.do(owner.store.due()) == []
        owner.finish("a")
        assert owner.do(owner.store.tick()).due == 0

    def test_a_due_context_without_a_record_is_dropped(
        self, owner: Owner, client: redis.Redis, lane: Lane, prefix: str
    ) -> None:
        """There is nothing left to do for it."""
        client.zadd(lane.key(prefix, "due"), {"ghost": 1})
        assert owner.do(owner.store.due()) == []
        assert client.zcard(lane.key(prefix, "due")) == 0

    def test_a_damaged_record_is_logged_and_left(
        self,
        owner: Owner,
        lanes: Outbox,
        client: redis.Redis,
        lane: Lane,
        prefix: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """It stops nobody else's effects."""
        for context in "ab":
            put(lanes, lane, context)
            lanes.settle(lane, receipt(context))
        client.hset(lane.key(prefix, "contexts"), "a", b"1 1 1 0\n{not json")
        assert [each.record.context for each in owner.do(owner.store.due(0))] == ["b"]
        assert "a damaged record" in caplog.text
        assert client.hexists(lane.key(prefix, "contexts"), "a")

    def test_finish_twice_is_finish(
        self, owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
    ) -> None:
        """And a context that is pending again is not finished by a late call."""
        put(lanes, lane, "a")
        lanes.settle(lane, receipt("a"))
        owner.finish("a")
        put(lanes, lane, "a")
        owner.finish("a")
        assert labels(owner) == ["a"]
        assert client.hexists(lane.key(prefix, "contexts"), "a")


def test_a_lane_with_dead_letters_is_not_retired(
    owner: Owner, client: redis.Redis, lane: Lane, prefix: str
) -> None:
    """Even if this process keeps none: somebody did before, and nobody would find them."""
    client.zadd(lane.key(prefix, "dead"), {"a": 1})
    assert not owner.do(owner.store.retire(0))
    client.delete(lane.key(prefix, "dead"))
    assert owner.do(owner.store.retire(0))


class TestTick:
    """What a lane holds."""

    def test_counts_and_the_next_deadline(self, owner: Owner, lanes: Outbox, lane: Lane) -> None:
        """Contexts, messages, and how long until something is to be expired."""
        tick = owner.do(owner.store.tick())
        assert (tick.contexts, tick.backlog, tick.due, tick.next_deadline) == (0, 0, 0, None)
        put(lanes, lane, "a", 3, timeout=50)
        put(lanes, lane, "b", timeout=5)
        tick = owner.do(owner.store.tick())
        assert (tick.contexts, tick.backlog, tick.due) == (2, 4, 0)
        assert tick.next_deadline is not None
        assert 4 < tick.next_deadline <= 5
        owner.settle([("b", -1, receipt("b"))], "t")
        tick = owner.do(owner.store.tick())
        assert (tick.contexts, tick.backlog, tick.due) == (2, 3, 1)
        assert tick.next_deadline is not None
        assert 40 < tick.next_deadline <= 50

    def test_an_overdue_deadline_is_none_left(
        self, owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
    ) -> None:
        """Never negative: that means that there is none."""
        put(lanes, lane, "a")
        client.zadd(lane.key(prefix, "deadlines"), {"a": 1})
        assert owner.do(owner.store.tick()).next_deadline == 0
        (settled,) = owner.do(owner.store.expire())
        assert settled.record.context == "a"
        assert owner.do(owner.store.tick()).next_deadline is None


class TestRetire:
    """A lane that has long been empty."""

    def test_an_empty_lane_is_gone_with_its_lease_and_numbers(
        self, owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
    ) -> None:
        """Its next life has another generation, so that its numbers mix with no old ones."""
        put(lanes, lane, "a")
        lanes.settle(lane, receipt("a"))
        finish(lanes, lane, "a")
        client.zadd(lane.key(prefix, "tombstones"), {"ended long ago": 1})
        generation = client.hget(lane.key(prefix, "meta"), "generation")
        assert owner.do(owner.store.retire(0))
        assert not client.exists(lane.key(prefix, "meta"), lane.key(prefix, "log"))
        assert owner.do(owner.store.acquire())
        assert client.hget(lane.key(prefix, "meta"), "generation") not in (None, generation)

    @pytest.mark.parametrize("state", ["pending", "due", "tombstone"])
    def test_one_that_holds_anything_stays(
        self, owner: Owner, lanes: Outbox, lane: Lane, state: str
    ) -> None:
        """A message, effects, or the memory of one that the broker may deliver again."""
        put(lanes, lane, "a", tombstone=60.0)
        if state != "pending":
            lanes.settle(lane, receipt("a"))
        if state == "tombstone":
            finish(lanes, lane, "a")
        assert not owner.do(owner.store.retire(0))
        assert owner.do(owner.store.tick())

    def test_it_leaves_the_list_of_lanes_in_the_same_step(
        self, owner: Owner, lanes: Outbox, lane: Lane
    ) -> None:
        """And is there for as long as it was announced, or holds anything: else nobody finds it."""
        lanes.registry.announce(lane)
        assert not owner.do(owner.store.retire(60))
        assert lanes.registry.survey()[1] == [lane]
        put(lanes, lane, "a")
        assert not owner.do(owner.store.retire(0))
        assert lanes.registry.survey()[1] == [lane]
        lanes.settle(lane, receipt("a"))
        finish(lanes, lane, "a")
        assert owner.do(owner.store.retire(0))
        assert lanes.registry.survey()[1] == []

    def test_an_announcement_that_comes_meanwhile_brings_the_options(
        self, owner: Owner, lanes: Outbox, lane: Lane, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are left in its step: the next owner finds the lane with them."""
        announcing = lanes.registry._scripts  # noqa: SLF001
        run = announcing.run

        def retired_before(*given: Any) -> Any:
            assert owner.do(owner.store.retire(0))
            return run(*given)

        monkeypatch.setattr(announcing, "run", retired_before)
        lanes.registry.announce(lane, {"max_in_flight": 7})
        assert lanes.registry.survey()[1] == [lane]
        assert owner.do(owner.store.options()) == {"max_in_flight": 7}

    @pytest.mark.parametrize(
        ("ahead", "retired"), [(-3500, False), (-3700, True), (80_000, False), (90_000, True)]
    )
    def test_only_an_announcement_counts_that_may_be_one(
        self,
        owner: Owner,
        lane: Lane,
        client: redis.Redis,
        prefix: str,
        ahead: int,
        retired: bool,
    ) -> None:
        """A clock may go back, but not by a day."""
        *_, listed, _ = scripts.lane_keys(prefix, lane, "owner", listed=True)
        client.zadd(listed, {lane.name: server_ms(client) // 1000 + ahead})
        assert owner.do(owner.store.retire(3600)) == retired

    def test_a_list_of_a_wrong_type_tells_nothing(
        self, owner: Owner, lane: Lane, client: redis.Redis, prefix: str
    ) -> None:
        """The next heartbeat heals it."""
        *_, listed, _ = scripts.lane_keys(prefix, lane, "owner", listed=True)
        client.set(listed, "no list")
        assert not owner.do(owner.store.retire(0))
        assert owner.do(owner.store.tick())

    def test_only_its_owner_retires_it(self, make_owner: MakeOwner) -> None:
        """Not one that was fenced."""
        old, new = _taken_over(make_owner)
        assert not old.do(old.store.retire(0))
        assert new.do(new.store.tick())


def test_options_that_a_caller_left_are_read(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str
) -> None:
    """And what cannot be read is none."""
    assert owner.do(owner.store.options()) == {}
    put(lanes, lane, "a", options={"compression_type": "LZ4", "encryption_keys": ("k",)})
    assert owner.do(owner.store.options()) == {"compression_type": "LZ4", "encryption_keys": ["k"]}
    client.hset(lane.key(prefix, "meta"), "options", b"{half")
    assert owner.do(owner.store.options()) == {}


class TestLostAnswers:
    """redis-py repeats a command whose answer was lost."""

    @pytest.fixture
    def proxy(self, redis_server: ServerAddress) -> Iterator[Proxy]:
        port = urlsplit(redis_server.url).port
        assert port is not None
        with Proxy(port) as proxy:
            yield proxy

    @pytest.fixture
    def through(
        self, proxy: Proxy, redis_server: ServerAddress, prefix: str, lane: Lane
    ) -> Iterator[Owner]:
        """An owner that reaches Redis through the proxy."""
        path = urlsplit(redis_server.url).path
        owner = Owner(f"redis://127.0.0.1:{proxy.port}{path}", prefix, lane, "owner", 10.0)
        yield owner
        owner.close()

    def test_the_lease_is_had_and_known(self, proxy: Proxy, through: Owner) -> None:
        """The repeat of who holds it already is told the same fencing token."""
        proxy.lose_answer_to(lambda data: b"EVAL" in data)
        assert through.do(through.store.acquire())
        assert proxy.lost == 1
        assert through.do(through.store.tick())

    def test_a_settled_context_is_not_taken_for_late(
        self, proxy: Proxy, through: Owner, lanes: Outbox, lane: Lane
    ) -> None:
        """Its effects are ours to do."""
        put(lanes, lane, "a")
        through.do(through.store.acquire())
        through.settle([], "warm up")
        proxy.lose_answer_to(lambda data: b"EVAL" in data)
        settled, late, _ = through.settle([("a", -1, receipt("a"))], "t")
        assert proxy.lost == 1
        assert ([each.record.context for each in settled], late) == (["a"], frozenset())


class TestNumbers:
    """What effectively once goes by."""

    def test_only_what_follows(self, owner: Owner, lanes: Outbox, lane: Lane) -> None:
        """A run ends before a gap, and the mark with it."""
        for context in "abcd":
            put(lanes, lane, context)
        owner.settle([("c", -1, receipt("c"))], "t")
        run = owner.do(owner.store.read(0, 10, 10_000, mark=True, gapless=True))
        assert [entry.label for entry in run] == ["a", "b"]
        assert owner.do(owner.store.progress()).tried == 2
        assert owner.do(owner.store.read(2, 10, 10_000, mark=True, gapless=True)) == []
        assert owner.do(owner.store.progress()).tried == 2
        after = owner.do(owner.store.read(3, 10, 10_000, mark=True, gapless=True))
        assert [entry.label for entry in after] == ["d"]

    def test_a_generation_begins_once(self, owner: Owner, lanes: Outbox, lane: Lane) -> None:
        """A repeat after a lost answer finds it begun; nothing was tried under it."""
        put(lanes, lane, "a")
        labels(owner, mark=True)
        before = owner.do(owner.store.progress())
        begun = owner.do(owner.store.begin_generation(before.generation))
        assert begun not in ("", before.generation)
        assert owner.do(owner.store.begin_generation(before.generation)) == begun
        after = owner.do(owner.store.progress())
        assert (after.generation, after.sent, after.tried) == (begun, 1, 0)

    def test_a_stale_owner_begins_none(self, make_owner: MakeOwner, lane: Lane) -> None:
        """The new owner sends under the present name."""
        old, new = _taken_over(make_owner)
        generation = new.do(new.store.progress()).generation
        with pytest.raises(Fenced):
            old.do(old.store.begin_generation(generation))
        assert new.do(new.store.progress()).generation == generation

    def test_a_list_in_other_lanes_takes_no_numbers(
        self, owner: Owner, lanes: Outbox, lane: Lane
    ) -> None:
        """Its places are settled from there, and touch no message here."""
        for context in "ab":
            put(lanes, lane, context)
        places = [(f"list\t{place}", b"") for place in range(2)]
        lanes.put(lane, Record("list", is_list=True), places, timeout=60.0)
        assert owner.do(owner.store.progress()).sent == 0
        for place in range(2):
            assert labels(owner) == ["a", "b"]
            lanes.settle(lane, receipt("list"), place=place)
        assert labels(owner) == ["a", "b"]


def test_what_is_completed_leaves_the_log_and_nothing_else(
    owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    """Not a message between two of which one is there twice, nor an entry of another kind."""
    for context in "abc":
        put(lanes, lane, context)
    client.xadd(lane.key(prefix, "log"), {"other": "kind"}, id="3-1")
    # As where Redis lost the lane's log and numbers, and not its contexts.
    client.hset(lane.key(prefix, "contexts"), "old", "2 1 1 0\n{}")
    assert owner.complete(["a", "old", "c"], [], "first").late == frozenset()
    left: Any = client.xrange(lane.key(prefix, "log"))
    assert [each for each, _ in left] == [b"2-0", b"3-1"]
    assert owner.complete(["b"], [], "second").late == frozenset()
    left = client.xrange(lane.key(prefix, "log"))
    assert [each for each, _ in left] == [b"3-1"]


@single_server
def test_a_result_is_stored_in_the_step_that_settles(
    owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    """With its end, and told to who waits; the answer counts what came too late."""
    for context in ("quiet", "told", "kept"):
        put(lanes, lane, context)
    pubsub = client.pubsub()  # type: ignore[no-untyped-call]
    pubsub.subscribe(f"{prefix}:told", f"{prefix}:kept", f"{prefix}:late")
    results = [
        ("told", ResultRow(f"{prefix}:told", "one", 60)),
        ("kept", ResultRow(f"{prefix}:kept", "two", 0)),
        ("late", ResultRow(f"{prefix}:late", "three", 0)),
    ]
    assert owner.complete(["quiet"], results, "t") == (frozenset({3}), False)
    assert client.mget([f"{prefix}:{each}" for each in ("told", "kept", "late")]) == [
        b"one",
        b"two",
        None,
    ]
    assert 0 < int(str(client.ttl(f"{prefix}:told"))) <= 60
    assert client.ttl(f"{prefix}:kept") == -1
    assert labels(owner) == []
    with pubsub:
        heard = [pubsub.get_message(timeout=5) for _ in range(3 + 2)][3:]
    assert [(each["channel"], each["data"]) for each in heard] == [
        (f"{prefix}:told".encode(), b"one"),
        (f"{prefix}:kept".encode(), b"two"),
    ]


class TestUnreadable:
    """Entries that may not be sent are told apart, and set aside."""

    @pytest.mark.parametrize("label", ["", "a\t0"])
    @pytest.mark.parametrize("context", ["a", 'a"b\\c', "\u00fc\u4e16"])
    def test_the_context_of_a_frame_is_found(
        self, lanes: Outbox, lane: Lane, owner: Owner, context: str, label: str
    ) -> None:
        """However JSON writes it, and whatever else the frame holds."""
        name = context + label.removeprefix("a")
        other = {"context": "x"}
        frame = encode_frame(Message(payload="x", properties=other), name, 1 << 20)
        lanes.put(lane, Record(name), [("", frame)], timeout=60.0)
        long = "x" * 2000
        lanes.put(
            lane,
            Record(long),
            [("", encode_frame(Message(payload="x"), long, 1 << 20))],
            timeout=60,
        )
        assert labels(owner) == [name, long]
        assert owner.store.unreadable == []

    def test_an_entry_without_its_context(
        self, lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str
    ) -> None:
        """It is not sent; nor is one whose record, frame or place cannot be read."""
        for context in "abcdefg":
            frame = b"secret" if context == "c" else b'{"payload":"","context":"%s"}'
            filled = frame.replace(b"%s", context.encode())
            lanes.put(lane, Record(context), [("", filled)], timeout=60.0)
        contexts, log = lane.key(prefix, "contexts"), lane.key(prefix, "log")
        client.hdel(contexts, "a")
        client.hset(contexts, "b", "no head")
        client.hset(contexts, "d", "1 1 1 0\n{}")  # of another message
        client.xadd(log, {"f": b'{"context":"g"}', "p": "x"}, id="8-0")
        client.xadd(log, {"f": b'{"context":"g"}'}, id="9-3")
        expected = [(1, "orphan"), (2, "damaged"), (3, "damaged"), (4, "orphan")]
        assert labels(owner, mark=True) == ["e", "f", "g"]
        assert owner.store.unreadable == [*expected, (8, "damaged"), (9, "damaged")]
        assert labels(owner, count=1) == ["e"]
        assert owner.store.unreadable == expected
        assert owner.do(owner.store.set_aside([*expected, (8, "damaged"), (9, "damaged")])) == 6
        assert client.hget(lane.key(prefix, "meta"), "set_aside") == b"6"
        quarantine: Any = client.xrange(lane.key(prefix, "quarantine"))
        told = [(int(each[b"number"]), each[b"reason"].decode()) for _, each in quarantine]
        assert told == [*expected, (8, "damaged"), (9, "damaged")]
        assert quarantine[2][1][b"q"] == b"secret"
        assert labels(owner) == ["e", "f", "g"]
        assert owner.store.unreadable == []

    def test_a_list_s_entry_and_a_record_of_this_version_that_cannot_be_read(
        self, lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str
    ) -> None:
        """Both are damaged: no newer process can read them."""
        put(lanes, lane, "a")
        client.hset(lane.key(prefix, "contexts"), "a", "2 no head")
        client.xadd(lane.key(prefix, "log"), {"f": b"secret", "p": "0"}, id="2-0")
        assert labels(owner) == []
        assert owner.store.unreadable == [(1, "damaged"), (2, "damaged")]

    def test_a_record_of_a_newer_version_keeps_its_place(
        self, lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str
    ) -> None:
        """What is behind it waits for a process that can read it, until its deadline."""
        for context in "abc":
            put(lanes, lane, context)
        contexts = lane.key(prefix, "contexts")
        client.hset(contexts, "b", b"3" + client.hget(contexts, "b")[1:])  # type: ignore[index, operator]
        assert labels(owner, mark=True) == ["a"]
        assert labels(owner, after=1, mark=True) == []
        assert owner.store.unreadable == [(2, "newer")]
        assert owner.do(owner.store.progress()).sent == 1
        assert owner.do(owner.store.set_aside([(2, "newer")])) == 0
        client.zadd(lane.key(prefix, "deadlines"), {"b": 1})
        assert labels(owner, after=1) == ["c"]
        assert owner.store.unreadable == [(2, "expired")]
        assert owner.do(owner.store.set_aside([(2, "expired")])) == 1
        assert client.hget(lane.key(prefix, "meta"), "set_aside") == b"1"
        week = 7 * 86_400_000
        assert week - 60_000 < client.pttl(lane.key(prefix, "quarantine")) <= week
        assert client.hexists(contexts, "b")

    def test_nothing_is_read_behind_a_record_of_a_newer_version(
        self, owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
    ) -> None:
        """Though more stand behind it than one look finds, and nothing before it."""
        contexts = lane.key(prefix, "contexts")
        for number in range(20):
            put(lanes, lane, f"c{number}")
        client.hset(contexts, "c0", b"3" + client.hget(contexts, "c0")[1:])  # type: ignore[index, operator]
        assert labels(owner, mark=True) == []
        assert owner.store.unreadable == [(1, "newer")]
        assert owner.do(owner.store.progress()).sent == 0

    def test_a_fenced_owner_sets_nothing_aside(self, owner: Owner, make_owner: MakeOwner) -> None:
        """The lane is another's."""
        owner.do(owner.store.release())
        make_owner("next")
        with pytest.raises(Fenced):
            owner.do(owner.store.set_aside([(1, "orphan")]))


def test_records_by_their_messages(
    owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    """What is gone, is another call's by now, or cannot be read is left out."""
    for context in ("here", "gone", "another", "bad"):
        put(lanes, lane, context)
    entries = owner.do(owner.store.read(0, 10, 1 << 20, mark=True))
    key = lane.key(prefix, "contexts")
    client.hdel(key, "gone")
    finish(lanes, lane, "another")
    client.hset(key, "another", "2 9 1\n{}")
    client.hset(key, "bad", b"2 4 1\nno JSON")
    found = owner.do(owner.store.records(entries))
    assert {number: record.context for number, record in found.items()} == {1: "here"}


@single_server
def test_who_wants_one_message_looks_at_one(
    owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    """Whoever waits for a lane's first message does, and it may have many megabytes behind it."""
    for number in range(20):
        put(lanes, lane, f"c{number}")
    key, end = lane.key(prefix, "log"), f"{prefix}:the end"
    looked: list[str] = []
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]
        assert labels(owner, count=100, size=1) == ["c0"]
        client.echo(end)
        while end not in (command := monitor.next_command()["command"]):
            if command.startswith(f"XRANGE {key} "):
                looked.append(command.split()[-1])
    assert looked == ["1"]


def test_contexts_whose_effects_are_given_up(
    lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str, owner: Owner
) -> None:
    """Are forgotten; with a cause a dead letter is left, and without one none."""
    store = LeasedLane(owner.store._redis, prefix, lane, "owner", 10.0, DeadLetterRules())  # noqa: SLF001
    for context in ("kept", "again"):
        put(lanes, lane, context)
    kept, again = (lanes.settle(lane, receipt(each)).settled for each in ("kept", "again"))
    assert kept is not None
    assert again is not None
    client.zadd(lane.key(prefix, "tombstones"), {"ended long ago": 1})
    owner.do(store.give_up([(kept, "BackendError result"), (again, "")]))
    assert client.hlen(lane.key(prefix, "contexts")) == 0
    assert client.zrange(lane.key(prefix, "dead"), 0, -1) == [b"kept"]
    assert client.zcard(lane.key(prefix, "tombstones")) == 0
    owner.do(store.give_up([]))


def test_dead_letters_whose_bytes_were_counted_wrong(
    lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str, owner: Owner
) -> None:
    """All of them are let go, and that ends it."""
    store = LeasedLane(owner.store._redis, prefix, lane, "owner", 10.0, DeadLetterRules())  # noqa: SLF001
    put(lanes, lane, "a")
    settled = lanes.settle(lane, receipt("a")).settled
    assert settled is not None
    counts = lane.key(prefix, "dead_counts")
    client.hset(counts, "bytes", 10**12)
    owner.do(store.give_up([(settled, "BackendError result")]))
    assert client.zcard(lane.key(prefix, "dead")) == 0
    assert client.hget(counts, "evicted") == b"1"


def test_each_message_of_a_list_that_failed_is_a_dead_letter(
    lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str, owner: Owner
) -> None:
    """Those that one call tells, and those that fail with the whole; not one that is stored."""
    of_lane = owner.store._redis, prefix, lane, "owner", 10.0  # noqa: SLF001
    store = LeasedLane(*of_lane, DeadLetterRules())
    assert owner.do(store.acquire())
    put(lanes, lane, "parts", 3)
    put(lanes, lane, "whole", 3)
    entries = owner.do(store.read(0, 10, 1 << 20, mark=True))
    failed = [(each, failure(each.context)) for each in entries[:2]]
    owner.do(store.settle(failed, "parts"))
    owner.do(store.settle([(entries[4], receipt("whole"))], "one"))
    whole = msgspec.structs.replace(entries[3], label="whole", place=-1)
    settled = owner.do(store.settle([(whole, failure("whole"))], "whole")).settled
    assert [each.record.context for each in settled] == ["whole"]
    letters = set(client.zrange(lane.key(prefix, "dead"), 0, -1))
    assert letters == {b"parts\t0", b"parts\t1", b"whole\t0", b"whole\t2"}


def test_messages_of_a_list_that_is_gone(owner: Owner) -> None:
    """Their outcomes are late."""
    outcomes = [("gone", place, receipt("gone")) for place in range(2)]
    assert owner.settle(outcomes, "t") == ([], frozenset({0, 1}), False)


def test_a_receipt_that_comes_after_the_failure(
    lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str, owner: Owner
) -> None:
    """Ends the dead letter of that message, and not one of another number; if any are kept here."""
    of_lane = owner.store._redis, prefix, lane, "owner", 10.0  # noqa: SLF001
    store = LeasedLane(*of_lane, DeadLetterRules())
    assert owner.do(store.acquire())
    for context in ("stored", "lost"):
        put(lanes, lane, context)
    entries = owner.do(store.read(0, 10, 1 << 20, mark=True))
    owner.do(store.settle([(each, failure(each.context)) for each in entries], "token"))
    dead = lane.key(prefix, "dead")
    assert set(client.zrange(dead, 0, -1)) == {b"stored", b"lost"}
    stored = [("stored", 1), ("lost", 1)]
    owner.do(owner.store.confirm(stored))
    assert client.zcard(dead) == 2
    owner.do(store.confirm(stored))
    assert client.zrange(dead, 0, -1) == [b"lost"]


def test_a_redis_that_came_back_with_an_older_state(
    owner: Owner, lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    """Is noticed by its numbers, and by the generation."""
    put(lanes, lane, "a", 3)
    owner.do(owner.store.read(0, 10, 1 << 20, mark=True))
    assert owner.do(owner.store.progress()).sent == 3
    meta = lane.key(prefix, "meta")
    client.hset(meta, "sent", 2)
    with pytest.raises(StoreRolledBack):
        owner.do(owner.store.progress())
    client.hset(meta, "sent", 3)
    assert owner.do(owner.store.progress()).sent == 3
    assert owner.do(owner.store.begin_generation(owner.do(owner.store.progress()).generation))
    client.hset(meta, "generation", "older")
    with pytest.raises(StoreRolledBack):
        owner.do(owner.store.progress())


def test_an_error_in_place_of_a_tick(owner: Owner) -> None:
    """Is raised: the leases of many lanes are renewed by one pipeline, which returns it."""
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        owner.store.read_tick(redis.exceptions.ResponseError("WRONGTYPE"))


class TestMarkedByThePut:
    """A put marks the message that the lane's owner waits for: it needs no read."""

    @pytest.fixture
    def waiting(self, owner: Owner, lanes: Outbox, lane: Lane) -> Owner:
        """An owner that completed a message, and waits for the second one."""
        put(lanes, lane, "a")
        owner.do(owner.store.read(0, 10, 1 << 20, mark=True))
        expect(owner, 2)
        owner.complete(["a"], [], "token")
        return owner

    @pytest.fixture
    def found(self, client: redis.Redis, waiting: Owner) -> Callable[[int], StoredEntry]:
        """Find an entry of the log, as the wait for it does."""

        def find(number: int) -> StoredEntry:
            key = waiting.store.log_key
            found: Any = client.xread({key: f"{number - 1}-0"}, count=1)
            ((_, [(entry, fields)]),) = stream_entries(found)
            return bytes(entry), fields

        return find

    def test_it_may_be_sent_at_once(
        self, waiting: Owner, found: Callable[[int], StoredEntry], lanes: Outbox, lane: Lane
    ) -> None:
        """It is what a read would have returned, and noted as sent; it is settled as ever."""
        put(lanes, lane, "b")
        taken = waiting.store.take(found(2))
        progress = waiting.do(waiting.store.progress())
        assert (progress.sent, progress.tried) == (2, 2)
        assert [taken] == waiting.do(waiting.store.read(1, 10, 1 << 20, mark=True))
        assert waiting.do(waiting.store.tick()).backlog == 1
        assert waiting.complete(["b"], [], "second") == (frozenset(), False)
        assert waiting.do(waiting.store.tick()).idle

    def test_so_is_one_of_an_event_loop(
        self, waiting: Owner, found: Callable[[int], StoredEntry], lanes: Outbox, lane: Lane
    ) -> None:
        """Which is put together with others that are put at the same time; here it is alone."""
        frame = encode_frame(Message(payload="x"), "b", 1 << 20)
        lanes.put_many([(lane, Record("b"), frame)], timeout=60.0)
        taken = waiting.store.take(found(2))
        assert taken is not None
        assert (taken.number, taken.context) == (2, "b")

    def test_what_is_behind_it_is_read(
        self, waiting: Owner, found: Callable[[int], StoredEntry], lanes: Outbox, lane: Lane
    ) -> None:
        """Until the owner has said that it waits for the next one."""
        for context in "bcd":
            put(lanes, lane, context)
        assert waiting.store.take(found(2)) is not None
        assert waiting.store.take(found(3)) is None
        assert waiting.do(waiting.store.progress()).sent == 2
        waiting.do(waiting.store.read(2, 10, 1 << 20, mark=True))
        expect(waiting, 5)
        waiting.complete(["b"], [], "more")
        put(lanes, lane, "e")
        assert waiting.store.take(found(5)) is not None

    def test_lists_are_read(
        self, waiting: Owner, found: Callable[[int], StoredEntry], lanes: Outbox, lane: Lane
    ) -> None:
        """And many calls that are put together: one read gets all of them."""
        put(lanes, lane, "list", 2)
        assert waiting.store.take(found(2)) is None
        expect(waiting, 4)
        waiting.complete(["gone"], [], "none")
        frames = {each: encode_frame(Message(payload="x"), each, 1 << 20) for each in "bc"}
        lanes.put_many([(lane, Record(each), frames[each]) for each in "bc"], timeout=60.0)
        assert waiting.store.take(found(4)) is None
        expect(waiting, 6)
        waiting.complete(["gone"], [], "again")
        # Only one of these is new.
        frames["d"] = encode_frame(Message(payload="x"), "d", 1 << 20)
        lanes.put_many([(lane, Record(each), frames[each]) for each in "bcd"], timeout=60.0)
        taken = waiting.store.take(found(6))
        assert taken is not None
        assert taken.context == "d"

    @pytest.mark.parametrize("then", ["release", "pause", "expect nothing"])
    def test_nobody_waits_any_more(
        self,
        waiting: Owner,
        found: Callable[[int], StoredEntry],
        lanes: Outbox,
        lane: Lane,
        client: redis.Redis,
        prefix: str,
        then: str,
    ) -> None:
        """What is put then was not sent."""
        calls = {
            "release": waiting.store.release,
            "pause": lambda: waiting.store.pause("a refusal", 30.0),
            "expect nothing": waiting.store.expect_nothing,
        }
        waiting.do(calls[then]())
        put(lanes, lane, "b")
        assert b"m" not in found(2)[1]
        assert client.hget(lane.key(prefix, "meta"), "sent") == b"1"

    @pytest.mark.parametrize("then", ["is read", "is marked"])
    def test_a_completion_on_its_way_comes_before_the_end_of_the_wait(
        self,
        waiting: Owner,
        lanes: Outbox,
        lane: Lane,
        client: redis.Redis,
        prefix: str,
        then: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Or it would say that somebody waits after the connection has ended."""
        store, held = waiting.store, asyncio.Event()
        run: Any = store._run  # noqa: SLF001

        async def held_up(name: str, *arguments: Any, **options: Any) -> Any:
            await held.wait()
            return await run(name, *arguments, **options)

        monkeypatch.setattr(store, "_run", held_up)

        async def end() -> None:
            store.expected = 2
            completing = asyncio.ensure_future(store.complete([Entry(1, "gone", b"")], [], "t"))
            await asyncio.sleep(0)
            store.expected = 0
            ending = asyncio.ensure_future(store.expect_nothing())
            ended, _ = await asyncio.wait([ending], timeout=0.1)
            assert not ended
            held.set()
            await asyncio.gather(completing, ending)

        waiting.do(end())
        assert client.hget(lane.key(prefix, "meta"), "expected") is None
        if then == "is marked":
            # Redis got the completion only now: it took longer than its caller waits.
            lease: Any = client.get(lane.key(prefix, "lease"))
            client.hset(lane.key(prefix, "meta"), "expected", lease + b" 2")
        put(lanes, lane, "b")
        marked = client.hget(lane.key(prefix, "meta"), "marked")
        assert (marked is not None) == (then == "is marked")
        (entry,) = waiting.do(store.read(1, 10, 1 << 20, mark=True))
        assert entry.number == 2
        waiting.do(store.tick())

    def test_the_end_of_the_wait_does_not_hold_up_a_completion(
        self, waiting: Owner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its connection may be dead, and that of the completion not."""
        store = waiting.store

        async def hang(*arguments: Any) -> None:
            del arguments
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(store._redis, "hdel", hang)  # noqa: SLF001

        async def complete() -> None:
            ending = asyncio.ensure_future(store.expect_nothing())
            await asyncio.sleep(0)
            async with asyncio.timeout(10):
                await store.complete([Entry(1, "gone", b"")], [], "t")
            assert not ending.done()
            ending.cancel()

        waiting.do(complete())

    def test_a_process_that_takes_its_own_lease_again(
        self, waiting: Owner, lanes: Outbox, lane: Lane, make_owner: MakeOwner
    ) -> None:
        """It could not give it back. The lease is the same, and so the put still marks for it."""
        again = make_owner()
        assert again.store.fencing_token == waiting.store.fencing_token
        assert again.do(again.store.progress()).sent == 1
        put(lanes, lane, "b")
        (entry,) = again.do(again.store.read(1, 10, 1 << 20, mark=True))
        assert entry.number == 2
        again.do(again.store.tick())
        # Nor does a read of what is ahead of it forget by which put it was marked.
        put(lanes, lane, "c")
        again.do(again.store.read(2, 10, 1 << 20, mark=True))
        again.do(again.store.tick())

    def test_another_hold_marks_what_it_sends(
        self, waiting: Owner, lanes: Outbox, lane: Lane, make_owner: MakeOwner
    ) -> None:
        """One who lost the lease does not take that for a Redis that came back."""
        put(lanes, lane, "b")
        waiting.do(waiting.store.progress())
        waiting.do(waiting.store.release())
        heir = make_owner("heir")
        heir.do(heir.store.begin_generation(heir.do(heir.store.progress()).generation))
        with pytest.raises(Fenced):
            waiting.do(waiting.store.progress())

    def test_another_hold_does_not_take_it(
        self,
        waiting: Owner,
        found: Callable[[int], StoredEntry],
        lanes: Outbox,
        lane: Lane,
        make_owner: MakeOwner,
    ) -> None:
        """The next owner reads it, as one that may have been sent."""
        put(lanes, lane, "b")
        waiting.do(waiting.store.release())
        heir = make_owner("heir")
        expect(heir, 2)
        heir.complete(["gone"], [], "none")
        assert heir.store.take(found(2)) is None
        assert heir.do(heir.store.progress()).sent == 2
        (entry,) = heir.do(heir.store.read(0, 10, 1 << 20, mark=True))
        assert entry.number == 2

    def test_one_that_lost_the_lease_gets_nothing(
        self,
        waiting: Owner,
        found: Callable[[int], StoredEntry],
        lanes: Outbox,
        lane: Lane,
        make_owner: MakeOwner,
    ) -> None:
        """Its receipts count, but it waits in vain."""
        put(lanes, lane, "b")
        waiting.do(waiting.store.read(1, 10, 1 << 20, mark=True))
        waiting.do(waiting.store.release())
        make_owner("heir")
        expect(waiting, 3)
        assert waiting.complete(["b"], [], "late").fenced
        put(lanes, lane, "c")
        assert b"m" not in found(3)[1]

    def test_a_redis_that_forgot_it_and_marked_another(
        self,
        waiting: Owner,
        found: Callable[[int], StoredEntry],
        lanes: Outbox,
        lane: Lane,
        client: redis.Redis,
        prefix: str,
    ) -> None:
        """Both have the same number, so only the put tells them apart."""
        keys = [lane.key(prefix, part) for part in ("log", "contexts", "deadlines", "meta")]
        before = [client.dump(each) for each in keys]
        put(lanes, lane, "sent")
        assert waiting.store.take(found(2)) is not None
        restore(client, keys, before)
        put(lanes, lane, "other")
        assert client.hget(keys[-1], "sent") == b"2"
        store = waiting.store
        for call in (store.tick, store.progress, lambda: store.read(0, 1, 1, mark=True)):
            with pytest.raises(StoreRolledBack):
                waiting.do(call())
        expect(waiting, 3)
        waiting.complete(["other"], [], "other")
        put(lanes, lane, "next")
        assert b"m" not in found(3)[1]

    @pytest.mark.parametrize("how", ["after a new connection", "although it was marked"])
    def test_a_redis_that_marks_a_number_that_was_read(
        self,
        waiting: Owner,
        lanes: Outbox,
        lane: Lane,
        client: redis.Redis,
        prefix: str,
        how: str,
    ) -> None:
        """It came back from before the number was given."""
        keys = [lane.key(prefix, part) for part in ("log", "contexts", "deadlines", "meta")]
        before = [client.dump(each) for each in keys]
        if how == "after a new connection":
            waiting.do(waiting.store.expect_nothing())
        put(lanes, lane, "sent")
        waiting.do(waiting.store.read(1, 10, 1 << 20, mark=True))
        assert not waiting.do(waiting.store.tick()).idle
        restore(client, keys, before)
        put(lanes, lane, "other")
        assert client.hget(keys[-1], "sent") == b"2"
        for call in (waiting.store.tick, waiting.store.progress):
            with pytest.raises(StoreRolledBack):
                waiting.do(call())

    def test_a_put_that_is_repeated_after_a_redis_forgot_it(
        self,
        waiting: Owner,
        found: Callable[[int], StoredEntry],
        lane: Lane,
        client: redis.Redis,
        prefix: str,
    ) -> None:
        """The token is the same, and so is the number; it was sent once already."""
        keys = [lane.key(prefix, part) for part in ("log", "contexts", "deadlines", "meta")]
        before = [client.dump(each) for each in keys]
        script = client.register_script(scripts.lane_script("put"))
        names = scripts.lane_keys(prefix, lane, "me", listed=True)
        arguments: list[str | int] = ["me:1", "b", "{}", 60_000, 0, 0, 1000, "f", "b", "frame"]
        arguments += ("", lane.name)
        script(keys=names, args=arguments)
        assert waiting.store.take(found(2)) is not None
        restore(client, keys, before)
        client.delete(lane.key(prefix, "answers:me"))
        began = server_ms(client)
        wait_for(lambda: server_ms(client) > began, 1.0)
        script(keys=names, args=arguments)
        with pytest.raises(StoreRolledBack):
            waiting.do(waiting.store.tick())

    def test_it_is_taken_once(
        self, waiting: Owner, found: Callable[[int], StoredEntry], lanes: Outbox, lane: Lane
    ) -> None:
        """An answer of Redis that was held up brings it once more."""
        put(lanes, lane, "b")
        stored = found(2)
        waiting.do(waiting.store.read(1, 10, 1 << 20, mark=True))
        assert waiting.store.take(stored) is None
        waiting.do(waiting.store.tick())
        expect(waiting, 3)
        waiting.complete(["b"], [], "third")
        put(lanes, lane, "c")
        assert waiting.store.take(found(3)) is not None
        assert waiting.store.take(found(3)) is None

    def test_one_behind_it_was_read(
        self, waiting: Owner, found: Callable[[int], StoredEntry], lanes: Outbox, lane: Lane
    ) -> None:
        """A read got both; then the wait brings the first one."""
        put(lanes, lane, "b")
        put(lanes, lane, "c")
        stored = found(2)
        assert len(waiting.do(waiting.store.read(1, 10, 1 << 20, mark=True))) == 2
        assert waiting.store.take(stored) is None
        waiting.do(waiting.store.tick())


def server_ms(client: redis.Redis) -> int:
    """The server's time in ms."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def restore(client: redis.Redis, keys: list[str], before: list[Any]) -> None:
    """Give keys the values that they had."""
    for key, data in zip(keys, before, strict=True):
        client.delete(key)
        if data is not None:
            client.restore(key, 0, data)


def expect(owner: Owner, number: int) -> None:
    """Let an owner wait for a message."""
    owner.store.expected = number
