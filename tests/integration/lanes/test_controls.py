"""Controls: each protection of the scripts, switched off, is missed.

A check holds with the scripts as they are, and must fail with the protection taken out of their
text: so it is the protection that the check sees, and not luck. Replay, realigning and what else
stands in the owners' Python has its controls in ``tests/simulation/controls.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from celery_stargate.errors import StoreUnavailable
from celery_stargate.lanes import scripts
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import Fenced, StoreRolledBack
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from tests.integration.lanes.rig import MakeOwner, Owner, failure, finish, put, receipt
from tests.servers.fixtures import ServerAddress


@dataclass(frozen=True)
class World:
    """A lane, its callers and its owners."""

    lane: Lane
    lanes: Outbox
    make_owner: MakeOwner
    client: redis.Redis
    prefix: str

    def key(self, part: str) -> str:
        """The key of one part of the lane."""
        return self.lane.key(self.prefix, part)

    def put(self, context: str, count: int = 1, **options: Any) -> None:
        """Record a context."""
        put(self.lanes, self.lane, context, count, **options)

    def script(
        self, name: str, *arguments: Any, caller: str = "slot", results: Sequence[str] = ()
    ) -> Any:
        """Run a script as one caller does."""
        listed = name in {"put", "put_many"}
        keys = scripts.lane_keys(self.prefix, self.lane, caller, listed=listed)
        keys += map(self.key, results)
        if listed:
            arguments += ('{"left": 1}', self.lane.name)
        return self.client.register_script(scripts.lane_script(name))(keys=keys, args=arguments)

    def overdue(self, context: str) -> None:
        """Let a context's deadline pass."""
        self.client.zadd(self.key("deadlines"), {context: 1}, xx=True)

    def taken_over(self) -> tuple[Owner, Owner]:
        """Return an owner whose lease ended while it was frozen, and the one who has it now."""
        old = self.make_owner("old")
        self.client.delete(self.key("lease"))
        return old, self.make_owner("new")


def _fenced(call: Callable[[], Any]) -> bool:
    try:
        call()
    except Fenced:
        return True
    return False


def reading_is_fenced(world: World) -> None:
    """One who was frozen sends nothing more: another does."""
    world.put("a")
    old, _ = world.taken_over()
    lease = old.store._lease  # noqa: SLF001
    assert world.script("read", lease, 0, 10, 1000, 1, 0, 0, "") == [1]


def noting_is_fenced(world: World) -> None:
    """One who was frozen after it had looked sends nothing more: another does."""
    world.put("a")
    old, _ = world.taken_over()
    lease = old.store._lease  # noqa: SLF001
    assert world.script("note", lease, 0, "", 1, "a", -1) == [1]


def errors_are_fenced(world: World) -> None:
    """One who was frozen refuses nothing: another may have stored it."""
    world.put("a")
    old, _ = world.taken_over()
    assert old.settle([("a", -1, failure("a"))], "t") == ([], frozenset({0}), True)


def effects_are_fenced(world: World) -> None:
    """One who was frozen does no effects: another does them."""
    world.put("a")
    world.lanes.settle(world.lane, receipt("a"))
    old, _ = world.taken_over()
    assert _fenced(lambda: old.do(old.store.due(0)))


def renewals_are_fenced(world: World) -> None:
    """One who was frozen does not prolong another's lease."""
    old, _ = world.taken_over()
    assert _fenced(lambda: old.do(old.store.tick()))


def generations_are_fenced(world: World) -> None:
    """One who was frozen changes no other's name."""
    old, new = world.taken_over()
    present = new.do(new.store.progress()).generation
    assert _fenced(lambda: old.do(old.store.begin_generation(present)))


def releases_are_fenced(world: World) -> None:
    """One who was frozen takes the lease from nobody."""
    old, new = world.taken_over()
    old.do(old.store.release())
    assert not _fenced(lambda: new.do(new.store.tick()))


def retirements_are_fenced(world: World) -> None:
    """One who was frozen forgets no lane."""
    old, _ = world.taken_over()
    assert not old.do(old.store.retire(0))


def leases_have_fencing_tokens(world: World) -> None:
    """A process that lost its lease and took it again is not the one who held it before."""
    first = world.make_owner("one")
    stale = world.client.get(world.key("lease"))
    world.client.delete(world.key("lease"))
    assert first.do(first.store.acquire())
    assert world.client.get(world.key("lease")) != stale


def a_repeated_put_is_answered(world: World) -> None:
    """The answer was lost; meanwhile the message was sent and its context finished."""
    call = ("token", "a", "{}", 60_000, 0, 0, 60_000, "f", "a", "frame")
    first = world.script("put", *call)
    world.script("settle", "", "t", 1000, "a", "", -1, "{}", "ok", caller="another")
    world.script("finish", "a", "")
    assert world.script("put", *call) == first
    assert world.client.xlen(world.key("log")) == 0


def a_repeated_settle_is_answered(world: World) -> None:
    """The answer was lost: whoever settled must hear that the effects are his."""
    world.put("a")
    call = ("", "token", 1000, "a", "", -1, "{}", "ok")
    assert world.script("settle", *call) == world.script("settle", *call)


def a_late_copy_of_a_settle_settles_nothing(world: World) -> None:
    """It hung in the network; meanwhile its context was finished and used again."""
    world.put("a")
    call = ("", "one:1", 1000, "a", "", -1, "{}", "ok")
    world.script("settle", *call)
    world.script("finish", "a", "")
    world.put("a")
    assert world.script("settle", *call) == [0, [b"late"]]
    world.script("settle", "", "one:2", 1000, "b", "", -1, "{}", "ok")
    assert world.script("settle", *call) == [0, [b"late"]]


def a_late_copy_of_a_revocation_revokes_nothing(world: World) -> None:
    """The same for a cancel."""
    world.put("a")
    call = ("one:1", 1000, "a", "", "{}")
    world.script("revoke", *call)
    world.script("finish", "a", "")
    world.put("a")
    assert world.script("revoke", *call) == [[b"late"]]
    assert world.client.xlen(world.key("log")) == 1


def numbers_go_on_where_meta_was_lost(world: World) -> None:
    """Somebody deleted it: the log takes no number that it had before."""
    world.put("a", 3)
    world.client.delete(world.key("meta"))
    with suppress(StoreUnavailable):
        world.put("b")
        world.lanes.put_many([(world.lane, Record("c"), b"frame")], timeout=60.0)
    entries: Any = world.client.xrange(world.key("log"))
    ids = [entry for entry, _ in entries]
    assert ids == [b"1-0", b"2-0", b"3-0", b"4-0", b"5-0"]


def a_replay_gets_a_number_that_the_log_takes(world: World) -> None:
    """The same for a dead letter."""
    bounds = "10 100000 60000"
    world.put("a")
    world.put("b")
    world.overdue("a")
    dead = (1000, 10, "a", "ProduceTimeout deadline", bounds)
    world.script("expire", *dead, results=scripts.DEAD_PARTS)
    found: Any = world.client.zscore(world.key("dead"), "a")
    world.client.delete(world.key("meta"))
    replayed = (60_000, 0, 0, "a", int(found), "a.replay-1", "{}", "frame", bounds)
    with suppress(redis.ResponseError):
        world.script("replay", *replayed, results=scripts.DEAD_PARTS)
    entries: Any = world.client.xrange(world.key("log"))
    assert [entry for entry, _ in entries] == [b"2-0", b"3-0"]


def a_lease_ends(world: World) -> None:
    """Something else than a script wrote one that never would."""
    world.client.set(world.key("lease"), "somebody:7")
    world.make_owner("one")


def a_context_is_recorded_once(world: World) -> None:
    """Celery's broker delivers a message twice."""
    world.put("a")
    world.put("a")
    assert world.client.xlen(world.key("log")) == 1


def a_finished_context_is_known(world: World) -> None:
    """Celery's broker delivers it again later."""
    world.put("a", tombstone=60.0)
    world.lanes.settle(world.lane, receipt("a"))
    finish(world.lanes, world.lane, "a")
    world.put("a", tombstone=60.0)
    assert world.client.xlen(world.key("log")) == 0


def there_is_one_outcome(world: World) -> None:
    """A deadline and a receipt meet."""
    world.put("a")
    world.overdue("a")
    assert len(world.lanes.expire(world.lane)) == 1
    assert world.lanes.settle(world.lane, receipt("a"))[0] == "late"


def a_place_has_one_outcome(world: World) -> None:
    """A receipt comes twice, and is not counted twice."""
    world.put("a", 3)
    for _ in range(2):
        world.lanes.settle(world.lane, receipt("a"), place=0)
    assert world.client.hget(world.key("outcomes"), "a\nleft") == b"2"


def nobody_else_refuses(world: World) -> None:
    """A stranger's error is no word of Pulsar's."""
    world.put("a")
    assert world.lanes.settle(world.lane, failure("a"))[0] == "ignored"


def effects_are_found(world: World) -> None:
    """Whoever settled died before he did them."""
    world.put("a")
    world.lanes.settle(world.lane, receipt("a"))
    owner = world.make_owner()
    assert [each.record.context for each in owner.do(owner.store.due(0))] == ["a"]


def effects_are_claimed(world: World) -> None:
    """They are found once, while they are being done."""
    world.put("a")
    world.lanes.settle(world.lane, receipt("a"))
    world.client.zadd(world.key("due"), {"a": 1})
    owner = world.make_owner()
    assert len(owner.do(owner.store.due())) == 1
    assert owner.do(owner.store.due()) == []


def deadlines_end_what_waits(world: World) -> None:
    """No receipt ever comes."""
    world.put("a")
    world.overdue("a")
    assert [each.record.context for each in world.lanes.expire(world.lane)] == ["a"]


def the_overdue_are_not_sent(world: World) -> None:
    """What was told to have failed leaves the log."""
    world.put("a")
    world.overdue("a")
    world.lanes.expire(world.lane)
    owner = world.make_owner()
    assert owner.do(owner.store.read(0, 10, 1000, mark=True)) == []


def overdue_lists_are_settled_some_at_a_time(world: World) -> None:
    """All of an outage in one step would hold up Redis for seconds."""
    for context in "abc":
        world.put(context, 300)
        world.overdue(context)
    assert [len(world.lanes.expire(world.lane)) for _ in range(3)] == [2, 1, 0]


def as_many_dead_letters_go_as_come(world: World) -> None:
    """Those of a list are not above their number for ever."""
    world.put("a", 210)
    world.overdue("a")
    dead = (1000, 10, "a", "ProduceTimeout deadline", "5 100000 60000")
    world.script("expire", *dead, results=scripts.DEAD_PARTS)
    assert world.client.zcard(world.key("dead")) == 5


def the_sent_are_unknown(world: World) -> None:
    """What may be in the topic is not told to be refused."""
    world.put("a")
    owner = world.make_owner()
    owner.do(owner.store.read(0, 10, 1000, mark=True))
    world.overdue("a")
    (settled,) = world.lanes.expire(world.lane)
    assert settled.failure.status == "unknown"


def _noted(world: World, *given: object, known: int = 0) -> Any:
    """The answer to an owner that found messages in the log: number, context, place of each."""
    lease = world.make_owner().store._lease  # noqa: SLF001
    return world.script("note", lease, known, "", *given)


def who_knows_more_than_redis_notes_nothing(world: World) -> None:
    """Redis went back: what it has may be another message."""
    world.put("a")
    assert _noted(world, 1, "a", -1, known=7) == [2]


def what_is_gone_is_not_noted(world: World) -> None:
    """It was finished after its owner had looked."""
    world.put("a")
    assert _noted(world, 1, "a", -1, 2, "gone", -1) == [0]
    assert not world.client.hexists(world.key("meta"), "sent")


def another_of_the_name_is_not_noted(world: World) -> None:
    """It has another number, and is another message."""
    world.put("a")
    assert _noted(world, 2, "a", -1) == [0]


def what_has_its_outcome_is_not_noted(world: World) -> None:
    """Its caller was told that it was not sent."""
    world.put("a")
    world.overdue("a")
    world.lanes.expire(world.lane)
    assert _noted(world, 1, "a", -1) == [0]


def a_place_that_has_its_outcome_is_not_noted(world: World) -> None:
    """The rest of its list waits."""
    world.put("a", 2)
    world.lanes.settle(world.lane, receipt("a"), place=0)
    assert _noted(world, 1, "a", 0, 2, "a", 1) == [0]


def what_was_noted_is_unknown(world: World) -> None:
    """What may be in the topic is not told to be refused."""
    world.put("a")
    assert _noted(world, 1, "a", -1) == [0, b""]
    world.overdue("a")
    (settled,) = world.lanes.expire(world.lane)
    assert settled.failure.status == "unknown"


def numbers_have_no_gap(world: World) -> None:
    """Where Pulsar counts, a message behind a gap would get another's number."""
    for context in "abc":
        world.put(context)
    world.lanes.settle(world.lane, receipt("b"))
    owner = world.make_owner()
    found = owner.do(owner.store.read(0, 10, 1000, mark=True, gapless=True))
    assert [each.number for each in found] == [1]


def a_generation_has_tried_nothing(world: World) -> None:
    """Under a new name no ``ok`` without a ledger can be true."""
    world.put("a")
    owner = world.make_owner()
    owner.do(owner.store.read(0, 10, 1000, mark=True))
    owner.do(owner.store.begin_generation(owner.do(owner.store.progress()).generation))
    assert owner.do(owner.store.progress()).tried == 0


def generations_begin_once(world: World) -> None:
    """The answer was lost: the repeat ends no generation but the one it means."""
    owner = world.make_owner()
    ended = owner.do(owner.store.progress()).generation
    begun = owner.do(owner.store.begin_generation(ended))
    assert owner.do(owner.store.begin_generation(ended)) == begun


def a_redis_that_went_back_is_noticed(world: World) -> None:
    """It gives numbers again that the owner has sent; under the same name they would be lost."""
    world.put("a")
    owner = world.make_owner()
    owner.do(owner.store.read(0, 10, 1000, mark=True))
    world.client.hdel(world.key("meta"), "sent", "tried")
    for call in (owner.store.tick, lambda: owner.store.read(0, 10, 1000, mark=True)):
        try:
            owner.do(call())
        except StoreRolledBack:
            continue
        raise AssertionError("it was not noticed")


def a_retired_lane_leaves_nothing(world: World) -> None:
    """Its next life begins with no numbers."""
    owner = world.make_owner()
    assert owner.do(owner.store.retire(0))
    assert not world.client.exists(world.key("meta"))


def a_hold_has_a_generation_of_its_own(world: World) -> None:
    """Redis may have come back without its tail: what is new goes under a name that is new."""
    owner = world.make_owner()
    before = owner.do(owner.store.progress()).generation
    world.put("a")
    owner.do(owner.store.release())
    assert owner.do(owner.store.acquire())
    progress = owner.do(owner.store.progress())
    assert progress.own
    assert progress.generation != before


def what_was_tried_goes_under_its_own_name(world: World) -> None:
    """Pulsar may have it: it is not sent under a name that is new."""
    owner = world.make_owner()
    world.put("a")
    owner.do(owner.store.read(0, 10, 1000, mark=True))
    before = owner.do(owner.store.progress()).generation
    owner.do(owner.store.release())
    assert owner.do(owner.store.acquire())
    progress = owner.do(owner.store.progress())
    assert (progress.generation, progress.tried, progress.own) == (before, 1, False)


def a_generation_that_is_lost_is_noticed(world: World) -> None:
    """Redis went back to before it began."""
    owner = world.make_owner()
    world.put("a")
    world.client.hset(world.key("meta"), "generation", "before")
    lease, known = owner.store._lease, owner.store._generation  # noqa: SLF001
    assert world.script("read", lease, 0, 10, 1000, 1, 0, 0, known) == [2]


def a_copy_of_an_earlier_put_does_nothing(world: World) -> None:
    """It was held up in the network, and its message was finished meanwhile."""
    calls = [
        (f"me:{n}", each, "{}", 60_000, 0, 0, 60_000, "f", each, "frame")
        for n, each in enumerate("ab")
    ]
    for each in calls:
        world.script("put", *each)
    world.script("complete", "", "t", 1, 0, 0, "a", "")
    assert world.script("put", *calls[0]) == [b"known", 0]


def another_of_the_name_is_not_settled(world: World) -> None:
    """The context is used again; the receipt is that of its earlier message."""
    world.put("a")
    settled = world.script("settle", "", "t", 1000, "a", 7, -1, "{}", "ok")
    assert settled[1] == [b"late"]


def another_of_the_name_is_not_settled_in_a_run(world: World) -> None:
    """Nor are the messages of a list."""
    world.put("a", 3)
    given = [each for i in (0, 1) for each in ("a", 7, i, "{}", "ok")]
    assert world.script("settle", "", "t", 1000, *given)[1:] == [[b"late"]] * 2


def another_of_the_name_is_not_completed(world: World) -> None:
    """As it is not settled."""
    world.put("a")
    assert world.script("complete", "", "t", 1, 0, 0, "a", 7)[1] == 1


def another_of_the_name_is_not_finished(world: World) -> None:
    """Its effects are not done."""
    world.put("a")
    world.script("settle", "", "t", 1000, "a", 1, -1, "{}", "ok")
    assert world.script("finish", "a", 7) == 0


def room_is_there_for_all_or_none(world: World) -> None:
    """What others reserved counts, too."""
    assert world.script("reserve", "one", 3, 4, 60_000) == [1, 0]
    assert world.script("reserve", "two", 3, 4, 60_000) == [0, 3]


def what_is_reserved_is_not_put_by_others(world: World) -> None:
    """By a call that needs no reservation."""
    world.script("reserve", "one", 3, 4, 60_000)
    arguments = ("t", 60_000, 4, 0, 60_000, "a", "{}", "q", "f", "b", "{}", "q", "f")
    assert world.script("put_many", *arguments)[0] == b"full"


def an_entry_without_its_record_is_not_sent(world: World) -> None:
    """Its outcome would settle nothing, and it would be sent for ever."""
    world.put("a")
    world.client.hdel(world.key("contexts"), "a")
    owner = world.make_owner()
    assert owner.do(owner.store.read(0, 10, 1000, mark=True)) == []


def a_repeated_put_of_many_is_answered(world: World) -> None:
    """The answer was lost; meanwhile one of them was sent and completed."""
    call = ("token", 60_000, 0, 0, 60_000, "a", "{}", "q", "frame", "b", "{}", "q", "frame")
    first = world.script("put_many", *call)
    world.script("complete", "", "t", 1, 0, 0, "a", "")
    assert world.script("put_many", *call) == first
    assert world.client.xlen(world.key("log")) == 1


def what_is_there_is_not_put_with_many(world: World) -> None:
    """A record that stands is not written over."""
    world.put("a")
    there = world.client.hget(world.key("contexts"), "a")
    world.script("put_many", "token", 60_000, 0, 0, 60_000, "a", '{"other":1}', "q", "frame")
    assert world.client.hget(world.key("contexts"), "a") == there


def the_overdue_of_many_are_found(world: World) -> None:
    """No receipt ever comes."""
    world.script("put_many", "token", 60_000, 0, 0, 60_000, "a", '{"context":"a"}', "q", "frame")
    world.overdue("a")
    assert [each.record.context for each in world.lanes.expire(world.lane)] == ["a"]


def a_repeated_completion_is_answered(world: World) -> None:
    """The answer was lost: nothing came too late."""
    world.put("a")
    call = ("", "token", 1, 0, 0, "a", "")
    assert world.script("complete", *call) == world.script("complete", *call)


def what_has_its_outcome_is_not_completed(world: World) -> None:
    """A deadline came before the receipt, and is being told."""
    world.put("a")
    world.overdue("a")
    world.lanes.expire(world.lane)
    assert world.script("complete", "", "t", 1, 0, 0, "a", "")[1] == 1


def a_completed_message_is_not_sent_again(world: World) -> None:
    """The next owner finds nothing of it."""
    world.put("a")
    world.script("complete", "", "t", 1, 0, 0, "a", "")
    assert world.client.xlen(world.key("log")) == 0


def a_result_is_published(world: World) -> None:
    """Who waits for it hears of it, and finds it."""
    world.put("a")
    with world.client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(world.key("result:a"))
        pubsub.get_message(timeout=5)
        world.script("complete", "", "t", 1, 1, 0, "a", "", "value", 60, results=["result:a"])
        heard = pubsub.get_message(timeout=1)
    assert heard is not None
    assert heard["data"] == b"value"
    assert world.client.get(world.key("result:a")) == b"value"


def a_result_has_an_end(world: World) -> None:
    """As the app's settings say; or none."""
    for context, expires, bounds in (("a", 60, (1, 60)), ("b", 0, (-1, -1))):
        world.put(context)
        key = f"result:{context}"
        world.script("complete", "", context, 1, 1, 0, context, "", "value", expires, results=[key])
        assert bounds[0] <= world.client.ttl(world.key(key)) <= bounds[1]


def what_has_its_outcome_gets_no_result(world: World) -> None:
    """A deadline came before the receipt, and is being told: there are no two results."""
    world.put("a")
    world.overdue("a")
    world.lanes.expire(world.lane)
    world.script("complete", "", "t", 1, 1, 0, "a", "", "value", 60, results=["result:a"])
    assert world.client.get(world.key("result:a")) is None


def a_result_is_its_contexts(world: World) -> None:
    """Where some have none, and some came too late."""
    for context in "abd":
        world.put(context)
    world.script(
        *("complete", "", "t", 4, 3, 0, *"abcd", *[""] * 4, "of b", 0, "of c", 0, "of d", 0),
        results=["result:b", "result:c", "result:d"],
    )
    found = world.client.mget([world.key(f"result:{each}") for each in "abcd"])
    assert found == [None, b"of b", None, b"of d"]


def a_context_is_completed_once(world: World) -> None:
    """Named twice, it counts once, and nothing of another goes with it."""
    for context in "abc":
        world.put(context)
    assert world.script("complete", "", "t", 3, 0, 0, "a", "a", "c", "", "", "") == [1, 1, 2]
    assert world.client.xlen(world.key("log")) == 1


def a_message_before_what_is_completed_stays(world: World) -> None:
    """Receipts overtake one another, where there are partitions."""
    for context in "abc":
        world.put(context)
    world.script("complete", "", "t", 2, 0, 0, "c", "b", "", "")
    assert world.client.xlen(world.key("log")) == 1


def a_message_between_what_is_completed_stays(world: World) -> None:
    """And so it does where the log's beginning goes."""
    for context in "abc":
        world.put(context)
    world.script("complete", "", "t", 2, 0, 0, "a", "c", "", "")
    assert world.client.xlen(world.key("log")) == 1


def a_message_between_a_number_that_comes_twice_stays(world: World) -> None:
    """Redis lost the lane's log and numbers once, and kept a context of then."""
    for context in "abc":
        world.put(context)
    world.client.hset(world.key("contexts"), "old", "2 1 1 0\n{}")
    world.script("complete", "", "t", 3, 0, 0, "a", "old", "c", "", "", "")
    assert world.client.xlen(world.key("log")) == 1


def a_place_has_one_outcome_in_a_run(world: World) -> None:
    """Receipts of a list come together, and one of them for the second time."""
    world.put("a", 5)
    for token, places in (("one", (0, 1)), ("two", (1, 2))):
        outcomes = [each for i in places for each in ("a", "", i, f'{{"by":"{token}"}}', "ok")]
        world.script("settle", "", token, 1000, *outcomes)
    assert world.client.hget(world.key("outcomes"), "a\nleft") == b"2"


def _wait_for(world: World, lease: str, number: int, known: str = "0 ") -> None:
    """Say that the owner waits for a message, as one does that completes another."""
    world.script("complete", lease, f"of {lease}", 1, 0, 0, "gone", "", known, "", number)


def _is_marked(world: World) -> bool:
    """Whether the last message was."""
    found: Any = world.client.xrevrange(world.key("log"), count=1)
    return b"m" in found[0][1]


def what_is_marked_is_noted(world: World) -> None:
    """Its owner sends it: if nobody knew that, it could be called refused."""
    _wait_for(world, world.make_owner().store._lease, 1)  # noqa: SLF001
    world.put("a")
    assert _is_marked(world)
    assert world.client.hmget(world.key("meta"), "sent", "tried") == [b"1", b"1"]


def what_is_not_waited_for_is_not_marked(world: World) -> None:
    """Its owner would not send it before what is ahead of it."""
    _wait_for(world, world.make_owner().store._lease, 1)  # noqa: SLF001
    world.put("a")
    world.put("b")
    assert not _is_marked(world)


def nothing_is_marked_to_an_earlier_hold(world: World) -> None:
    """It was frozen, and sends nothing more."""
    old = world.make_owner("old")
    _wait_for(world, old.store._lease, 1)  # noqa: SLF001
    world.client.delete(world.key("lease"))
    world.make_owner("new")
    world.put("a")
    assert not _is_marked(world)


def another_with_the_number_is_noticed(world: World) -> None:
    """Redis forgot the message that was marked, and marked another one."""
    lease = world.make_owner().store._lease  # noqa: SLF001
    _wait_for(world, lease, 1)
    world.put("a")
    assert world.script("tick", lease, 1000, "1 one:1 forgotten:1 7") == [2]


def who_lost_the_lease_waits_in_vain(world: World) -> None:
    """Puts mark for the other one."""
    old, new = world.taken_over()
    _wait_for(world, new.store._lease, 1)  # noqa: SLF001
    _wait_for(world, old.store._lease, 1)  # noqa: SLF001
    world.put("a")
    assert _is_marked(world)


def who_knows_more_than_redis_waits_in_vain(world: World) -> None:
    """Redis went back: what it gives a number to has to wait for another generation."""
    _wait_for(world, world.make_owner().store._lease, 1, "7 ")  # noqa: SLF001
    world.put("a")
    assert not _is_marked(world)


def a_lane_that_begins_is_announced(world: World) -> None:
    """Its caller may be gone, and its message would wait for another one's put."""
    call = ("token", "a", "{}", 60_000, 0, 0, 60_000, "f", "a", "frame")
    world.script("put", *call)
    assert world.lanes.registry.survey()[1] == [world.lane]


def a_lane_that_begins_with_many_is_announced(world: World) -> None:
    """As by a single one."""
    world.script("put_many", "token", 60_000, 0, 0, 60_000, "a", "{}", "q", "frame")
    assert world.lanes.registry.survey()[1] == [world.lane]


_FENCE = "if redis.call('GET', LEASE) ~= ARGV[1] then"

#: The check, the script, and its protection with what stands there once it is off.
CONTROLS: list[tuple[Callable[[World], None], str, str, str]] = [
    (reading_is_fenced, "read", _FENCE, "if false then"),
    (noting_is_fenced, "note", _FENCE, "if false then"),
    (
        who_knows_more_than_redis_notes_nothing,
        "note",
        "if rolled_back(ARGV[2], ARGV[3])",
        "if false",
    ),
    (what_is_gone_is_not_noted, "note", "not first or", "first and"),
    (another_of_the_name_is_not_noted, "note", "not first or", "not first or false and"),
    (what_has_its_outcome_is_not_noted, "note", "or settled[i]", ""),
    (a_place_that_has_its_outcome_is_not_noted, "note", "or settled_parts[i]", ""),
    (what_was_noted_is_unknown, "note", "note_sent(last)", "''"),
    (errors_are_fenced, "settle", "redis.call('GET', LEASE) == ARGV[1]", "true"),
    (effects_are_fenced, "due", _FENCE, "if false then"),
    (renewals_are_fenced, "tick", _FENCE, "if false then"),
    (generations_are_fenced, "generation", _FENCE, "if false then"),
    (releases_are_fenced, "release", _FENCE, "if false then"),
    (retirements_are_fenced, "retire", _FENCE, "if false then"),
    (leases_have_fencing_tokens, "lease", "redis.call('HINCRBY', META, 'fencing_token', 1)", "1"),
    (a_repeated_put_is_answered, "common", "if by == token then", "if false then"),
    (a_repeated_settle_is_answered, "settle", "if by == token then", "if false then"),
    (a_lane_that_begins_is_announced, "announcement", "math.abs(reply[2]) ~= 1", "true"),
    (a_lane_that_begins_with_many_is_announced, "announcement", "math.abs(reply[2]) ~= 1", "true"),
    (a_context_is_recorded_once, "put", "if record then", "if false then"),
    (a_finished_context_is_known, "common", "until_ms and tonumber(until_ms) > now", "false"),
    (a_copy_of_an_earlier_put_does_nothing, "common", "tonumber(call) < tonumber(last)", "false"),
    (a_late_copy_of_a_settle_settles_nothing, "settle", "if copy then", "if false then"),
    (a_late_copy_of_a_revocation_revokes_nothing, "revoke", "if copy then", "if false then"),
    (numbers_go_on_where_meta_was_lost, "common", "'^%d+')) + 1 end", "'^%d+')) end"),
    (
        a_replay_gets_a_number_that_the_log_takes,
        "replay",
        "take_numbers(1)",
        "redis.call('HINCRBY', META, 'last', 1)",
    ),
    (a_lease_ends, "lease", "and redis.call('PTTL', LEASE) >= 0", ""),
    (another_of_the_name_is_not_settled, "settle", "not is_meant(first, number)", "false"),
    (
        another_of_the_name_is_not_settled_in_a_run,
        "settle",
        "not is_meant(first, ARGV[from + 1])",
        "false",
    ),
    (
        another_of_the_name_is_not_completed,
        "complete",
        "and is_meant(first, ARGV[5 + given + i])",
        "",
    ),
    (
        another_of_the_name_is_not_finished,
        "common",
        "not first or not is_meant(first, number)",
        "not first",
    ),
    (room_is_there_for_all_or_none, "reserve", "held + count > tonumber(ARGV[3])", "false"),
    (what_is_reserved_is_not_put_by_others, "common", "count = count + tonumber(left)", ""),
    (
        an_entry_without_its_record_is_not_sent,
        "common",
        "return 'orphan' end\n  local",
        "return nil end\n  local",
    ),
    (a_hold_has_a_generation_of_its_own, "lease", "'^%d+')) > tried", "'^%d+')) < 0"),
    (what_was_tried_goes_under_its_own_name, "lease", "'^%d+')) > tried", "'^%d+')) > 0"),
    (a_generation_that_is_lost_is_noticed, "common", "under ~= generation", "false"),
    (there_is_one_outcome, "settle", "if settled then", "if false then"),
    (a_place_has_one_outcome, "settle", "json) == 0", "json) == 2"),
    (nobody_else_refuses, "settle", "kind == 'foreign' and count > 0", "false"),
    (effects_are_found, "common", "redis.call('ZADD', DUE, at, context)", ""),
    (effects_are_claimed, "due", "redis.call('ZADD', DUE", "tostring('ZADD', DUE"),
    (deadlines_end_what_waits, "put", "redis.call('ZADD', DEADLINES, now + timeout, context)", ""),
    (the_overdue_are_not_sent, "expire", "forget_entries(first, count)", ""),
    (
        overdue_lists_are_settled_some_at_a_time,
        "expire",
        "if settled >= ENOUGH then break end",
        "",
    ),
    (as_many_dead_letters_go_as_come, "dead_letters", "MOST_PRUNED + kept", "MOST_PRUNED"),
    (the_sent_are_unknown, "read", "if ARGV[5] == '1' and last > after then", "if false then"),
    (numbers_have_no_gap, "read", "gapless and found.number ~= last + 1", "false"),
    (a_generation_has_tried_nothing, "generation", "redis.call('HDEL', META, 'tried')", ""),
    (generations_begin_once, "generation", "'generation') == ARGV[2]", "'generation')"),
    (a_redis_that_went_back_is_noticed, "common", "return sent < number or", "return"),
    (a_repeated_put_of_many_is_answered, "common", "if by == token then", "if false then"),
    (
        what_is_there_is_not_put_with_many,
        "put_many",
        "redis.call('HEXISTS', CONTEXTS, ARGV[i]) == 0",
        "true",
    ),
    (
        the_overdue_of_many_are_found,
        "put_many",
        "redis.call('ZADD', DEADLINES, unpack(deadlines))",
        "",
    ),
    (a_repeated_completion_is_answered, "complete", "if by == ARGV[2] then", "if false then"),
    (what_has_its_outcome_is_not_completed, "complete", "and not outcomes[i]", ""),
    (a_context_is_completed_once, "complete", "and not seen[context]", ""),
    (a_result_is_published, "complete", "redis.call('PUBLISH', key, value)", ""),
    (a_result_has_an_end, "complete", "expires == '0'", "true"),
    (what_has_its_outcome_gets_no_result, "complete", "and not outcomes[i]", ""),
    (a_result_is_its_contexts, "complete", "[i - without] = true", "[#followed + 1] = true"),
    (
        a_completed_message_is_not_sent_again,
        "complete",
        "redis.call('XTRIM', LOG, 'MINID', string.format('%.0f-1', highest))",
        "",
    ),
    (
        a_message_before_what_is_completed_stays,
        "complete",
        "string.format('(%.0f-0', lowest), 'COUNT', 1) == 0",
        "'-', 'COUNT', 1) == 0",
    ),
    (
        a_message_between_what_is_completed_stays,
        "complete",
        "highest - lowest + 1 == #numbers",
        "true",
    ),
    (
        a_message_between_a_number_that_comes_twice_stays,
        "complete",
        "if not seen[first] then numbers",
        "if true then numbers",
    ),
    (
        what_is_marked_is_noted,
        "common",
        "redis.call('HSET', META, 'sent', sent, 'tried', sent, 'marked', marked)",
        "",
    ),
    (what_is_not_waited_for_is_not_marked, "common", "tonumber(expected) ~= number or", ""),
    (
        nothing_is_marked_to_an_earlier_hold,
        "common",
        "or redis.call('GET', LEASE) ~= lease",
        "",
    ),
    (another_with_the_number_is_noticed, "common", "by ~= (marked or '')", "false"),
    (who_lost_the_lease_waits_in_vain, "complete", "expected and fenced == 0", "expected"),
    (
        who_knows_more_than_redis_waits_in_vain,
        "complete",
        "and not is_older(known, under, sent, generation, marked)",
        "",
    ),
    (a_place_has_one_outcome_in_a_run, "settle", "if known then return false end", ""),
    (a_retired_lane_leaves_nothing, "retire", "DUE, META, LEASE", "DUE, LEASE"),
]


@pytest.fixture
def worlds(
    make_owner: MakeOwner,
    client: redis.Redis,
    prefix: str,
    topic: str,
    redis_server: ServerAddress,
) -> Callable[[str], World]:
    """Make worlds with a lane of their own."""

    def make(name: str) -> World:
        lane = Lane(f"{topic}-{name}")
        # What reads the scripts keeps them.
        lanes = Outbox(Connections(redis_server.url), prefix)

        def own(*args: Any, **options: Any) -> Owner:
            return make_owner(*args, **{"lane": lane, **options})

        return World(lane, lanes, own, client, prefix)

    return make


@pytest.fixture
def change_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Change a script's text, until the test is over."""

    def change(name: str, text: str, other: str) -> None:
        read = scripts._read  # noqa: SLF001
        # Now, and not where the check runs, which is to fail.
        whole = read(f"{name}.lua")
        assert text in whole, f"{name}.lua holds this protection no more"

        def changed(path: str) -> str:
            return whole.replace(text, other) if path == f"{name}.lua" else read(path)

        monkeypatch.setattr(scripts, "_read", changed)
        scripts._text.cache_clear()  # noqa: SLF001

    yield change
    monkeypatch.undo()
    scripts._text.cache_clear()  # noqa: SLF001


_NAMES = [row[0].__name__ for row in CONTROLS]


@pytest.mark.parametrize("check", [row[0] for row in CONTROLS], ids=_NAMES)
def test_a_protection_holds(check: Callable[[World], None], worlds: Callable[[str], World]) -> None:
    """Each check passes with it."""
    check(worlds("with"))


@pytest.mark.parametrize(("check", "name", "protection", "off"), CONTROLS, ids=_NAMES)
def test_a_protection_that_is_off_is_missed(
    check: Callable[[World], None],
    name: str,
    protection: str,
    off: str,
    worlds: Callable[[str], World],
    change_script: Callable[[str, str, str], None],
) -> None:
    """The check fails without it."""
    change_script(name, protection, off)
    with pytest.raises(AssertionError):
        check(worlds("without"))
