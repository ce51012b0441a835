"""The lanes' scripts, called in any order: the model agrees, and what a lane promises holds.

Whoever changes a script should let it run for longer: see `profile.py`.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from celery_stargate.lanes import states
from celery_stargate.lanes.scripts import DEAD_PARTS
from celery_stargate.lanes.states import TRANSITIONS, Event
from celery_stargate.model.frame import label_in
from tests.integration.lanes.pair import UNIT, Pair, State
from tests.integration.lanes.profile import chosen_settings
from tests.servers import redis as redis_module
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer
from tests.simulation.dead_letters_model import Letter

# The scripts are tested here, not a module: and tracing makes it ten times as long.
pytestmark = pytest.mark.no_cover

CONTEXTS = [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"m"]
#: Which context: mostly one of those that could be meant, by its number; from 8 on any.
CONTEXT = st.integers(0, 9)
#: Which of the leases that were ever given; 0 is the one that holds.
LEASE = st.sampled_from([0, 0, 0, 0, 0, 1, 2])
DURATION = st.sampled_from([UNIT, 3 * UNIT, 5 * UNIT])
CAUSE = st.sampled_from(["", "ProduceError x", "ProduceTimeout deadline"])
KIND = st.sampled_from(
    ["ok", "ok", "error", "error\nProduceError x", "foreign", "ok\nProduceError x"]
)
#: The bounds of dead letters: so few that some are let go, and none are kept by some callers.
DEAD = st.sampled_from(["", f"2 100000 {9 * UNIT}", f"100 60 {9 * UNIT}", f"100 9999 {3 * UNIT}"])
LIMIT = st.sampled_from([1, 100, 100])
#: What follows a message's receipt, and the task that is done with it where it has a name.
MARK = st.sampled_from(["f", "f", "q", "r", "i", "rshop.orders", "i\u00e4"])
#: How far the mark that a caller knows of is ahead of what is there: 1 where Redis went back.
AHEAD = st.sampled_from([-1, 0, 0, 0, 0, 1])
#: By which put the last message was marked, as far as the caller knows.
MARKED = st.sampled_from(["none", "the last", "the last", "another"])
#: Whose number is given: that of the context that is there, none, or that of an earlier one.
MEANT = st.sampled_from(["this", "this", "this", "any", "another"])
OUTCOME = st.tuples(
    CONTEXT,
    MEANT,
    st.sampled_from([-1, -1, 0, 0, 1, 1, 2, 3]),
    st.sampled_from(["{}", '{"entry_id":1}', '{"reason":"no"}']),
    KIND,
)

#: What may happen, how often beside the others, and with what.
STEPS: dict[str, tuple[int, dict[str, st.SearchStrategy[Any]]]] = {
    "put": (
        5,
        {
            "caller": st.sampled_from(["web", "task"]),
            "chosen": CONTEXT,
            # The last one takes `read` more than one step.
            "count": st.sampled_from([0, 1, 1, 1, 2, 2, 3, 40]),
            "elsewhere": st.sampled_from([False, False, True]),
            "mark": MARK,
            "size": st.integers(1, 20),
            "timeout": DURATION,
            "max_backlog": st.sampled_from([0, 0, 0, 0, 2, 42, "room:1"]),
            "tombstone": st.sampled_from([0, 0, UNIT, 5 * UNIT]),
        },
    ),
    "put_many": (
        2,
        {
            "caller": st.sampled_from(["web", "task"]),
            "chosen": st.lists(CONTEXT, max_size=3),
            "mark": MARK,
            "size": st.integers(1, 20),
            "timeout": DURATION,
            "max_backlog": st.sampled_from([0, 0, 0, 2, 42, "room:1"]),
            "tombstone": st.sampled_from([0, 0, UNIT, 5 * UNIT]),
        },
    ),
    "put_again": (1, {"caller": st.sampled_from(["web", "task"])}),
    "put_late": (1, {"which": st.integers(2, 5)}),
    "reserve": (
        1,
        {
            "name": st.sampled_from(["room:1", "room:2"]),
            "count": st.sampled_from([0, 1, 3, 40]),
            "max_backlog": st.sampled_from([2, 42]),
            "ms": DURATION,
        },
    ),
    "take_lease": (2, {"owner": st.sampled_from(["one", "two"]), "ttl": DURATION}),
    "read": (
        3,
        {
            "which": LEASE,
            "start": st.sampled_from([0, 0, 0, 1, 2, 3, 50]),
            "before": st.sampled_from([1, 1, 2]),
            "count": st.sampled_from([0, 1, 2, 100, 100, 100]),
            "size": st.sampled_from([0, 1, 15, 100, 10_000, 10_000]),
            "mark": st.booleans(),
            "gapless": st.booleans(),
            "ahead": AHEAD,
            "marked": MARKED,
        },
    ),
    "note": (
        2,
        {
            "which": LEASE,
            "start": st.sampled_from([0, 0, 1, 2]),
            "count": st.sampled_from([1, 2, 3, 100]),
            "differs": st.sampled_from(["", "", "", "number", "context", "place"]),
            "ahead": AHEAD,
            "marked": MARKED,
        },
    ),
    "settle": (
        3,
        {
            "which": st.none() | LEASE,
            "grace": DURATION,
            "chosen": st.lists(OUTCOME, min_size=1, max_size=4),
            "again": st.booleans(),
            "dead": DEAD,
        },
    ),
    "settle_all": (
        3,
        {
            "which": LEASE,
            "grace": DURATION,
            "chosen": CONTEXT,
            "kind": KIND,
            "meant": MEANT,
            "together": st.booleans(),
            # All of them, or so many.
            "some": st.sampled_from([100, 100, 1, 2, 20]),
            "dead": DEAD,
        },
    ),
    "complete": (
        2,
        {
            "which": LEASE,
            "chosen": st.lists(CONTEXT, min_size=1, max_size=4),
            "meant": st.lists(MEANT, min_size=4, max_size=4),
            # So many of them have a result.
            "results": st.integers(0, 4),
            "expires": st.sampled_from([0, UNIT // 1000, 5 * UNIT // 1000]),
            "again": st.booleans(),
            # Which message is waited for, after the last; and what the waiting one knows.
            "expects": st.sampled_from([None, 1, 1, 1, 2, 0]),
            "ahead": AHEAD,
            "marked": MARKED,
        },
    ),
    "expire": (
        2,
        {
            "grace": DURATION,
            "limit": LIMIT,
            "chosen": st.none() | CONTEXT,
            "leap": st.booleans(),
            "cause": CAUSE,
            "dead": DEAD,
        },
    ),
    "revoke": (
        2,
        {
            "grace": DURATION,
            "chosen": st.lists(CONTEXT, min_size=1, max_size=3),
            "meant": MEANT,
            "cause": CAUSE,
            "dead": DEAD,
        },
    ),
    "give_up": (
        1,
        {
            "chosen": st.lists(CONTEXT, max_size=3),
            "meant": MEANT,
            "cause": CAUSE,
            "dead": DEAD,
        },
    ),
    "replay": (
        2,
        {
            "chosen": st.lists(st.integers(0, 5), max_size=3),
            "fresh": st.sampled_from([True, True, True, False]),
            "timeout": DURATION,
            "max_backlog": st.sampled_from([0, 0, 2]),
            "tombstone": st.sampled_from([0, UNIT]),
            "bounds": DEAD,
        },
    ),
    "discard": (1, {"chosen": st.integers(0, 5), "fresh": st.booleans(), "bounds": DEAD}),
    "confirm": (1, {"chosen": st.integers(0, 5), "replayed": st.booleans(), "bounds": DEAD}),
    "due": (
        2,
        {
            "which": LEASE,
            "grace": DURATION,
            "limit": LIMIT,
            "offset": st.sampled_from([-1, -1, 0, 1]),
            "leap": st.booleans(),
        },
    ),
    "finish": (2, {"chosen": st.lists(CONTEXT, max_size=3), "meant": MEANT}),
    "set_aside": (1, {"which": LEASE, "start": st.integers(0, 3)}),
    "lose_record": (1, {"chosen": CONTEXT}),
    "release": (1, {"which": LEASE}),
    "begin_generation": (
        1,
        {"which": LEASE, "ended": st.sampled_from(["present", "present", "another", "any"])},
    ),
    "tick": (1, {"which": LEASE, "ttl": DURATION, "ahead": AHEAD, "marked": MARKED}),
    "retire": (1, {"which": LEASE, "idle": st.sampled_from([0, UNIT // 1000, 3 * UNIT // 1000])}),
    "leap": (1, {"ms": st.sampled_from([2 * UNIT, 4 * UNIT])}),
    "upgrade": (1, {"chosen": CONTEXT}),
    "forget_scripts": (1, {}),
    "restart": (1, {}),
}


def _steps(names: Iterable[str]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    weighted = [name for name in names for _ in range(STEPS[name][0])]
    return st.sampled_from(weighted).flatmap(
        lambda name: st.tuples(st.just(name), st.fixed_dictionaries(STEPS[name][1]))
    )


_RECORD = re.compile(rb"\d+ (-?\d+) (\d+) \d+\n")
#: What becomes of dead letters.
_WENT = (b"evicted", b"outdated", b"retried", b"replaced", b"replayed", b"discarded", b"confirmed")
_EVENTS = {event.value: event for event in Event}


class LaneMachine(RuleBasedStateMachine):
    """One lane, its callers and its owners.

    Arguments:
        server: a Redis of its own.
    """

    _examples = itertools.count()

    def __init__(self, server: RedisServer) -> None:
        super().__init__()
        self.server = server
        self.client = redis.Redis.from_url(server.url)
        self.pair = Pair(self.client, f"machine-{next(self._examples)}")
        self.seen = self.pair.state
        self.leases = [b"nobody:1"]
        self.numbers = itertools.count(1)
        #: The last put of each caller: its script, arguments and answer.
        self.puts: dict[str, tuple[str, list[Any], Any]] = {}
        #: The numbers of entries that lost their record, and of those that were set aside.
        self.orphans: set[int] = set()
        #: All puts that were answered, with their callers.
        self.told: list[tuple[str, str, list[Any]]] = []
        self.aside: set[int] = set()

    def teardown(self) -> None:
        """Leave nothing to the next example."""
        self.client.flushall()
        self.client.close()

    @property
    def state(self) -> State:
        """What is there now."""
        return self.pair.state

    @property
    def held(self) -> bytes | None:
        """The lease that holds."""
        return self.state.strings.get(self.pair.key("lease"))

    @property
    def marked(self) -> int:
        """The highest number that may have been sent."""
        return int(self.state.meta.get(b"sent", 0))

    @property
    def last(self) -> int:
        """The last number that was given."""
        return int(self.state.meta.get(b"last", 0))

    def known(self, ahead: int, marked: str) -> tuple[str, bool]:
        """What an owner knows to be noted, and whether Redis knows less, or something else."""
        stored = self.state.meta.get(b"marked", b"").decode()
        by = {"none": "", "the last": stored, "another": "nobody:9 nobody:1 7"}[marked]
        number = max(0, self.marked + ahead)
        less = number > self.marked or (number == self.marked and by != stored)
        return f"{number} {by}", less

    def check_mark(self, before: State, new: int, first: int) -> None:
        """Of new messages the one that is waited for was marked, if it came alone."""
        lease, _, number = before.meta.get(b"expected", b"").rpartition(b" ")
        held = before.strings.get(self.pair.key("lease"))
        marked = new == 1 and number == b"%d" % first and lease == held
        by = self.state.meta.get(b"marked", b"")
        if marked:
            assert by.startswith(lease + b" ")
            assert self.marked == first
            assert self.state.log[-1][1][b"m"] == by
        else:
            assert (by, self.marked) == (
                before.meta.get(b"marked", b""),
                int(before.meta.get(b"sent", 0)),
            )

    def lease(self, which: int) -> bytes:
        """The lease that holds, taken if need be; or one of the last that do not."""
        if which == 0:
            if self.held is None:
                self.take_lease("one", 5 * UNIT)
            assert self.held is not None
            return self.held
        over = [each for each in self.leases if each != self.held]
        return over[-min(max(which, 1), len(over))]

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Run a script in both, and check what it did to the contexts."""
        answer = self.pair.call(name, *arguments, **options)
        self.check_transitions(_EVENTS.get(name), retired=name == "retire" and answer == 1)
        return answer

    def choose(self, number: int, among: Iterable[bytes] = ()) -> bytes:
        """A context: one of those that are there, or of some, or any."""
        known = sorted(among) or sorted(self.state.contexts)
        chosen = known if known and number < 8 else CONTEXTS
        return chosen[number % len(chosen)]

    def number(self, context: bytes, meant: str) -> int | str:
        """The first number of a context, as a caller may give it."""
        if meant == "any":
            return ""
        record = self.state.contexts.get(context)
        first = _head(record)[0] if record else 1
        return first if meant == "this" else first - 1

    def means(self, context: bytes, meant: str) -> bool:
        """Whether an outcome for the context counts: it is there, readable, and meant."""
        return meant != "another" and self.state.contexts.get(context, b"").startswith(
            (b"1 ", b"2 ")
        )

    # One rule, for all steps alike: each of many rules would be left out of half the runs.

    @rule(step=_steps(name for name in STEPS if name != "restart"))
    def step(self, step: tuple[str, dict[str, Any]]) -> None:
        """Call a script, or let something happen."""
        name, arguments = step
        getattr(self, name)(**arguments)

    def put(
        self,
        caller: str,
        chosen: int,
        count: int,
        elsewhere: bool,
        mark: str,
        size: int,
        **numbers: Any,
    ) -> None:
        """A context with any number of messages, here or in other lanes."""
        context = self.choose(chosen, set(CONTEXTS) - self.state.contexts.keys())
        number = next(self.numbers)
        arguments: list[Any] = [f"{caller}:{number}", context, f'{{"n":{number}}}']
        arguments += [numbers["timeout"], numbers["max_backlog"], numbers["tombstone"], 3 * UNIT]
        arguments.append(mark)
        for place in range(count):
            label = context if count == 1 else b"%s\t%d" % (context, place)
            packed = b"%d\n%b{}" % (size, b"\n" * size)
            frame = b"x" * size if (size + place) % 3 else packed
            arguments += [label, b"" if elsewhere and count > 1 else frame]
        known, limit = context in self.state.contexts, numbers["max_backlog"]
        before = self.pair.state
        what, first = answer = self.call("put", *arguments, caller=caller)
        self.puts[caller] = "put", arguments, answer
        self.told.append((caller, "put", arguments))
        self.check_mark(before, count if what == b"new" and first > 0 else 0, first)
        assert (what == b"new") == (context in self.state.contexts and not known)
        if isinstance(limit, int) and limit and what == b"new" and not (elsewhere and count > 1):
            assert count == 0 or len(self.state.log) <= limit

    def put_many(
        self, caller: str, chosen: list[int], mark: str, size: int, **numbers: Any
    ) -> None:
        """Some contexts with one message each; one that is there stays as it is."""
        absent = set(CONTEXTS) - self.state.contexts.keys()
        contexts = list(dict.fromkeys(self.choose(each, absent) for each in chosen))
        number = next(self.numbers)
        limit, tombstone = numbers["max_backlog"], numbers["tombstone"]
        arguments: list[Any] = [f"{caller}:{number}", numbers["timeout"], limit, tombstone]
        arguments.append(3 * UNIT)
        for context in contexts:
            frame = b'{"payload":"%s","context":"%s"}' % (b"x" * size, context)
            if size % 2:
                frame = b'%d\n%b{"context":"%s"}' % (size, b"\n" * size, context)
            arguments += [context, f'{{"n":{number}}}', mark, frame]
        last = int(self.state.meta.get(b"last", 0))
        there = self.pair.state
        before = there.contexts.keys()
        answer = self.call("put_many", *arguments, caller=caller)
        self.puts[caller] = "put_many", arguments, answer
        self.told.append((caller, "put_many", arguments))
        new = [each for each in contexts if each in self.state.contexts and each not in before]
        self.check_mark(there, len(new), answer[1])
        assert (answer[0] == b"new") == bool(new)
        assert not new or answer[1] == last + 1
        assert not (new and isinstance(limit, int) and limit) or len(self.state.log) <= limit
        assert [_head(self.state.contexts[each]) for each in new] == [
            (last + place, 1) for place in range(1, len(new) + 1)
        ]
        if not tombstone and not limit:
            assert self.state.contexts.keys() >= set(contexts)

    def put_again(self, caller: str) -> None:
        """The answer was lost: a repeat gets it, whatever became of the context since."""
        if caller not in self.puts:
            return
        name, arguments, first = self.puts[caller]
        answered = self.state.strings.get(self.pair.key(f"answers:{caller}"), b"")
        remembered = answered.startswith(arguments[0].encode() + b"\n")
        there = self.state.contexts
        answer = self.call(name, *arguments, caller=caller)
        if remembered:
            assert answer == first
            assert self.state.contexts == there
        self.puts[caller] = name, arguments, answer

    def put_late(self, which: int) -> None:
        """A copy of a put comes long after it was answered: it does nothing."""
        if len(self.told) < which:
            return
        caller, name, arguments = self.told[-which]
        answered = self.state.strings.get(self.pair.key(f"answers:{caller}"), b"")
        last = answered.partition(b"\n")[0].decode()
        if not last or last == arguments[0]:
            return
        there = replace(self.state, ends={})
        assert self.call(name, *arguments, caller=caller) == [b"known", 0]
        assert replace(self.state, ends={}) == there

    def reserve(self, name: str, count: int, max_backlog: int, ms: int) -> None:
        """Room for messages that are to come; none where the lane would hold too many."""
        there_is, held = self.call("reserve", name, count, max_backlog, ms)
        assert there_is == (not count or held + count <= max_backlog)
        assert held >= len(self.state.log)
        assert (name.encode() in self.state.reserved) == bool(count and there_is)

    def take_lease(self, owner: str, ttl: int) -> None:
        """Or renew it, or hear that another has it. Each hold has a fencing token of its own."""
        held, before = self.held, self.state.meta
        taken, number, *_ = self.call("lease", owner, ttl, f"g{next(self.numbers)}")
        if held is None:
            assert taken
            # New messages go under a generation of this hold's own, and no others do.
            tried = int(before.get(b"tried", 0))
            begun = not self.state.log or self.state.log[0][0] > tried or not before
            own = self.state.meta.get(b"begun_by") == b"%d" % number
            assert own == (begun or b"generation" not in before)
            assert not own or b"tried" not in self.state.meta
            self.leases.append(f"{owner}:{number}".encode())
            assert self.held == self.leases[-1]
        elif held.startswith(owner.encode()):
            assert (taken, held) == (1, f"{owner}:{number}".encode())
        else:
            assert not taken

    def read(
        self,
        which: int,
        start: int,
        before: int,
        count: int,
        size: int,
        mark: bool,
        gapless: bool,
        ahead: int,
        marked: str,
    ) -> None:
        """From anywhere, bounded by count, bytes, or the first gap."""
        there = [number for number, _ in self.state.log]
        after = max(0, there[min(start, len(there) - 1)] - before) if there else start
        lease, (known, less) = self.lease(which), self.known(ahead, marked)
        there_sent, there_mark = self.marked, self.state.meta.get(b"marked", b"")
        word, *found = self.call(
            "read", lease, after, count, size, int(mark), int(gapless), known, ""
        )
        assert word == (1 if lease != self.held else 2 if less else 0)
        by, found = (found[0], found[1:]) if found else (b"", [])
        rows = list(zip(*(found[i::5] for i in range(5)), strict=True))
        numbers = [row[0] for row in rows if row[3] != -2]
        frames = [row[2] for row in rows if row[3] != -2]
        assert b"newer" not in [row[4] for row in rows[:-1]]
        assert (
            found[::5]
            == [number for number, _ in self.state.log if number > after][: len(found) // 5]
        )
        assert not gapless or numbers == list(range(after + 1, after + 1 + len(numbers)))
        assert len(found) // 5 <= count
        assert sum(map(len, frames)) <= max(size, len(frames[0]) if frames else 0)
        if mark and numbers:
            assert int(self.state.meta[b"sent"]) >= int(self.state.meta[b"tried"]) >= numbers[-1]
        again = mark and numbers and numbers[-1] == there_sent
        assert by == (there_mark if again else b"")

    def note(
        self, which: int, start: int, count: int, differs: str, ahead: int, marked: str
    ) -> None:
        """What may be sent of what is in the log, and the others of which none may be."""
        lease, (known, less) = self.lease(which), self.known(ahead, marked)
        found = self.pair.call("read", self.lease(0), 0, 100, 10_000, 0, 0, 0, "")[2:]
        rows = list(zip(*(found[i::5] for i in range(5)), strict=True))[start : start + count]
        given = [
            [number, _label(label, frame).removesuffix(f"\t{place}"), place]
            for number, label, frame, place, _ in rows
        ] or [[1, "nobody", -1]]
        if differs:
            column = ("number", "context", "place").index(differs)
            other: Any = "nobody" if differs == "context" else given[-1][column] + 2
            given[-1][column] = other
        there_sent, there_mark = self.marked, self.state.meta.get(b"marked", b"")
        word, *noted = self.call("note", lease, known, "", *itertools.chain(*given))
        assert word == (1 if lease != self.held else 2 if less else 0)
        usual = not (word or differs) and rows and all(row[3] != -2 for row in rows)
        assert bool(noted) == bool(usual)
        if noted:
            last = rows[-1][0]
            assert int(self.state.meta[b"sent"]) >= int(self.state.meta[b"tried"]) >= last
            assert noted == [there_mark if last == there_sent else b""]
        else:
            assert self.marked == there_sent

    def settle(
        self,
        which: int | None,
        grace: int,
        chosen: list[tuple[Any, ...]],
        again: bool,
        dead: str,
    ) -> None:
        """By the owner, a fenced one or anyone; the answer may be lost, and the call repeated."""
        outcomes = [
            ((context := self.choose(number)), self.number(context, meant), *rest)
            for number, meant, *rest in chosen
        ]
        aimed = {
            context: self.means(context, meant)
            for context, (_, meant, *_) in zip((each[0] for each in outcomes), chosen, strict=True)
        }
        lease = b"" if which is None else self.lease(which)
        arguments = [lease, f"s:{next(self.numbers)}", grace, *itertools.chain(*outcomes)]
        fenced, *answers = self.call("settle", *arguments, dead=dead)
        assert fenced == (lease not in {b"", self.held})
        for (context, *_), (_, meant, *_), said in zip(outcomes, chosen, answers, strict=True):
            assert aimed[context] or meant != "another" or said == [b"late"]
        if again:
            there = replace(self.state, ends={})
            _, *repeated = self.call("settle", *arguments, dead=dead)
            # What this call completed, it is told again, wherever the context stands in it.
            done = {each[0]: said for each, said in zip(outcomes, answers, strict=True) if said[1:]}
            for each, how, first, second in zip(outcomes, chosen, answers, repeated, strict=True):
                assert second == (first if how[1] == "another" else done.get(each[0], first))
            assert replace(self.state, ends={}) == there

    def settle_all(
        self,
        which: int,
        grace: int,
        chosen: int,
        kind: str,
        meant: str,
        together: bool,
        some: int,
        dead: str,
    ) -> None:
        """The messages of a context, the last of a list first; in one call or in one each."""
        context = self.choose(chosen, self.state.deadlines)
        if context not in self.state.contexts:
            return
        (_, count), number = _head(self.state.contexts[context]), self.number(context, meant)
        outcomes = [
            (context, number, place if count > 1 else -1, f'{{"place":{place}}}', kind)
            for place in reversed(range(max(count, 1)))
        ]
        lease, outcomes = self.lease(which), outcomes[:some]
        for part in [outcomes] if together else [[each] for each in outcomes]:
            token = f"s:{next(self.numbers)}"
            self.call("settle", lease, token, grace, *itertools.chain(*part), dead=dead)

    def complete(
        self,
        which: int,
        chosen: list[int],
        meant: list[str],
        results: int,
        expires: int,
        again: bool,
        expects: int | None,
        ahead: int,
        marked: str,
    ) -> None:
        """By the owner or a fenced one: a receipt counts; the answer may be lost."""
        contexts = [self.choose(each, self.state.deadlines) for each in chosen]
        lease, token = self.lease(which), f"s:{next(self.numbers)}"
        due, pending = self.state.due.keys(), self.state.deadlines.keys()
        told = contexts[len(contexts) - min(results, len(contexts)) :]
        keys = [f"result:{each.decode()}" for each in told]
        before = {each: self.state.strings.get(self.pair.key(each)) for each in keys}
        values = [value for each in told for value in (f"{token} {each.decode()}", expires)]
        numbers = [self.number(each, how) for each, how in zip(contexts, meant, strict=False)]
        aimed = {each: self.means(each, how) for each, how in zip(contexts, meant, strict=False)}
        arguments = [lease, token, len(contexts), len(told), 0, *contexts, *numbers, *values]
        expected, is_told = self.state.meta.get(b"expected"), False
        if expects is not None:
            (known, less), number = self.known(ahead, marked), self.last + expects
            is_told = lease == self.held and not less
            expected = b"%s %d" % (lease, number) if is_told else expected
            arguments += [known, "", number]
        answer = self.call("complete", *arguments, results=keys)
        assert answer[0] == (lease != self.held)
        assert self.state.meta.get(b"expected") == expected
        assert due == self.state.due.keys(), "what has its outcome keeps it"
        for context in set(contexts):
            if contexts.count(context) == 1 and not aimed[context] and context in pending:
                assert context in self.state.deadlines, "another of this name was meant"
        for context, key in zip(told, keys, strict=True):
            stored = self.state.strings.get(self.pair.key(key))
            if context not in pending or context in self.state.deadlines:
                assert stored == before[key], "what was not settled has no result"
            elif contexts.count(context) == 1:
                assert stored == f"{token} {context.decode()}".encode()
        if again:
            there = replace(self.state, ends={})
            assert self.call("complete", *arguments, results=keys) == answer
            assert replace(self.state, ends={}) == there

    def expire(
        self, grace: int, limit: int, chosen: int | None, leap: bool, cause: str, dead: str
    ) -> None:
        """What is overdue, or one context where it is."""
        if leap:
            self.leap(2 * UNIT)
        context = b"" if chosen is None else self.choose(chosen, self.state.deadlines)
        now, deadlines = self.pair.model.now(), self.state.deadlines
        sent, numbers = self.marked, self.state.log
        reply = self.call("expire", grace, limit, context, cause, dead=dead)
        for each, record, outcomes in zip(reply[::3], reply[1::3], reply[2::3], strict=True):
            assert deadlines[each] <= now
            first, count = _head(record)
            if first > 0 and count == 1:
                assert outcomes == (b"[1]" if first <= sent else b"[0]")
            # What nobody knows is never told to be refused.
            assert b"0" not in outcomes[1:-1].split(b",") or all(
                number > sent for number, _ in numbers if number == first + count - 1
            )

    def revoke(self, grace: int, chosen: list[int], meant: str, cause: str, dead: str) -> None:
        """Of contexts that are pending, or were: what was sent is not failed."""
        contexts = [self.choose(each, self.state.deadlines) for each in chosen]
        sent, before = self.marked, self.state
        given: list[bytes | int | str] = []
        for context in contexts:
            given += [context, self.number(context, meant), b"{}"]
        if dead:
            given.append(cause)
        reply = self.call("revoke", f"r:{next(self.numbers)}", grace, *given, dead=dead)
        for context, (word, *_) in zip(contexts, reply, strict=True):
            if word == b"due" and context in before.deadlines:
                first, count = _head(before.contexts[context])
                places = [i for i in range(count) if first + i <= sent]
                assert all(b"%s\n%d" % (context, i) in before.outcomes for i in places)
            if word == b"late" and meant == "any":
                assert context not in before.deadlines or contexts.count(context) > 1

    def due(self, which: int, grace: int, limit: int, offset: int, leap: bool) -> None:
        """All effects that are to be done, or those whose time has come: these are claimed."""
        if leap:
            self.leap(2 * UNIT)
        fenced, *found = self.call("due", self.lease(which), grace, limit, offset)
        if not fenced and offset < 0 and limit > 1:
            assert not [each for each in self.state.due.values() if each <= self.pair.model.now()]
        for context, outcomes in zip(found[::3], found[2::3], strict=True):
            assert self.state.outcomes[context].endswith(b"\n" + outcomes)

    def finish(self, chosen: list[int], meant: str) -> None:
        """By one who has done their effects, or is mistaken."""
        contexts = [self.choose(each, self.state.due) for each in chosen]
        due = {each for each in contexts if each in self.state.due and self.means(each, meant)}
        given = [part for each in contexts for part in (each, self.number(each, meant))]
        assert self.call("finish", *given) == len(due)
        assert not self.state.due.keys() & due

    def give_up(self, chosen: list[int], meant: str, cause: str, dead: str) -> None:
        """By one whose effects failed for good, or are tried again."""
        contexts = [self.choose(each, self.state.due) for each in chosen]
        due = {each for each in contexts if each in self.state.due and self.means(each, meant)}
        given: list[Any] = []
        for each in contexts:
            given += [each, self.number(each, meant), cause]
        assert self.call("give_up", *given, dead=dead) == len(due)
        assert not self.state.due.keys() & due

    def replay(
        self,
        chosen: list[int],
        fresh: bool,
        timeout: int,
        max_backlog: int,
        tombstone: int,
        bounds: str,
    ) -> None:
        """Of dead letters that are there, or failed again since; each is sent once."""
        messages: list[Any] = []
        effects: list[Any] = []
        for letter, head in self.letters(chosen):
            last = head.last if fresh else head.last - 1
            again = b"%s.replay-%d" % (letter, head.failures)
            body = b'{"n":1,"replayed":[%d,%d]}' % (head.failures, head.begun)
            frame = self.state.dead_bodies[letter].partition(b"\n")[2]
            messages += [letter, last, again, body, frame]
            effects += [letter, last, letter.partition(b"\t")[0]]
        if not messages or not bounds:
            return
        numbers, before = (timeout, max_backlog, tombstone), self.state
        words = self.call("replay", *numbers, *messages, dead=bounds)
        words += self.call("redo", *effects, dead=bounds)
        done = words.count(b"done")
        assert len(self.state.dead) == len(before.dead) - done
        assert len(self.state.contexts) == len(before.contexts) + done
        assert fresh or not done

    def discard(self, chosen: int, fresh: bool, bounds: str) -> None:
        """Of a dead letter that is there, or failed again since."""
        for letter, head in self.letters([chosen]):
            if bounds:
                last = head.last if fresh else head.last + 1
                assert self.call("discard", letter, last, dead=bounds) == [fresh]

    def confirm(self, chosen: int, replayed: bool, bounds: str) -> None:
        """Of a message that is stored after all, or was and has failed again since."""
        for letter, head in self.letters([chosen]):
            label = b"%s.replay-1" % letter if replayed else letter
            stored = head.kind == b"m"
            if bounds:
                assert self.call("confirm", label, head.number - 1, dead=bounds) == 0
                assert self.call("confirm", label, head.number, dead=bounds) == stored

    def letters(self, chosen: list[int]) -> list[tuple[bytes, Letter]]:
        """Some of the dead letters."""
        there = sorted(self.state.dead_letters)
        some = dict.fromkeys(there[number % len(there)] for number in chosen if there)
        return [(each, Letter.decode(self.state.dead_letters[each])) for each in some]

    def release(self, which: int) -> None:
        """By the one who holds it, or by another in vain."""
        lease, held = self.lease(which), self.held
        assert self.call("release", lease) == (lease == held)
        assert self.held == (None if lease == held else held)

    def set_aside(self, which: int, start: int) -> None:
        """Entries that may not be sent leave the log; one that waits for another version stays."""
        lease = self.lease(which)
        found = self.pair.call("read", lease, start, 100, 10_000, 0, 0, 0, "")[2:]
        rows = [
            each for each in zip(*(found[i::5] for i in range(5)), strict=True) if each[3] == -2
        ]
        there = [number for number, _ in self.state.log]
        gone = [number for number, *_, why in rows if why != b"newer"]
        given = [each for number, *_, why in rows for each in (number, why)]
        answer = self.call("set_aside", lease, *given)
        assert answer == ([0, len(gone)] if lease == self.held else [1])
        self.aside |= set(gone) if lease == self.held else set()
        assert [number for number, _ in self.state.log] == [
            number for number in there if lease != self.held or number not in gone
        ]

    def begin_generation(self, which: int, ended: str) -> None:
        """After the one that is there, or whichever it is; after another none begins."""
        lease, held, new = self.lease(which), self.held, f"g{next(self.numbers)}"
        present = self.state.meta.get(b"generation", b"none")
        meant = {"present": present, "another": b"another", "any": b""}[ended]
        self.call("generation", lease, meant, new)
        begun = lease == held and ended != "another"
        assert (self.state.meta.get(b"generation") == new.encode()) == begun
        assert not begun or b"tried" not in self.state.meta

    def tick(self, which: int, ttl: int, ahead: int, marked: str) -> None:
        """Renew the lease, and count."""
        lease, (known, less) = self.lease(which), self.known(ahead, marked)
        word, *_ = self.call("tick", lease, ttl, known)
        assert word == (1 if lease != self.held else 2 if less else 0)

    def retire(self, which: int, idle: int) -> None:
        """A lane that holds anything, or was announced a short time ago, stays."""
        before, lease, held = self.state, self.lease(which), self.held
        retired = self.call("retire", lease, idle, dead="0 0 0")
        kept = any(until > self.pair.now for until in before.tombstones.values())
        recent = any(at > self.pair.now / 1000 - idle for at in before.announced.values())
        empty = not (before.contexts or before.log or kept or before.dead)
        assert retired == (empty and not recent and lease == held)
        assert not retired or not self.state.announced

    # What else happens

    def leap(self, ms: int) -> None:
        """Leases lapse, deadlines pass, claims and tombstones end."""
        self.pair.leap(ms)
        self.check_transitions(None)

    def upgrade(self, chosen: int) -> None:
        """A record of a version that these scripts do not know is left alone."""
        context = self.choose(chosen)
        # Nothing would be left after many of them.
        if context in self.state.contexts and chosen < 3:
            self.pair.change("contexts", context, b"2" + self.state.contexts[context][1:])

    def lose_record(self, chosen: int) -> None:
        """A pending context is gone; its messages stay in the log, and are never sent."""
        context = self.choose(chosen, self.state.deadlines)
        told = context + b"\nleft" in self.state.outcomes
        if context not in self.state.deadlines or told or chosen > 2:
            return
        first, count = _head(self.state.contexts[context])
        self.pair.drop("deadlines", context)
        self.pair.change("contexts", context, None)
        self.orphans |= set(range(first, first + count)) if first > 0 else set()
        self.seen = self.state

    def forget_scripts(self) -> None:
        """As a Redis does when it starts."""
        self.client.script_flush()

    def restart(self) -> None:
        """It is killed, and comes back: all that it answered is in its file."""
        self.server.kill()
        self.server.start()
        self.pair.check()

    # What holds

    def check_transitions(self, event: Event | None, *, retired: bool = False) -> None:
        """Contexts have moved along the table, by this event only; outcomes stay what they are."""
        before, after = self.seen, self.state
        self.seen = after
        for context in before.contexts.keys() | after.contexts.keys():
            old, new = _stand(before, context), _stand(after, context)
            if old is not new:
                assert event is not None
                assert TRANSITIONS[old].get(event) is new, (context, old, event, new)
            if old is new is states.State.DUE:
                assert before.outcomes[context] == after.outcomes[context]
        for name in () if retired else (b"last", b"sent", b"fencing_token"):
            assert int(after.meta.get(name, 0)) >= int(before.meta.get(name, 0))

    @invariant()
    def holds(self) -> None:
        """Every context is in one state, with all that belongs to it and nothing else."""
        there = self.state
        assert there.deadlines.keys() | there.due.keys() == there.contexts.keys()
        assert not there.deadlines.keys() & there.due.keys()
        expected: dict[bytes, bool] = dict.fromkeys(there.due, True)
        numbers: set[int] = set()
        for context in there.deadlines:
            first, count = _head(there.contexts[context])
            places = {i: b"%s\n%d" % (context, i) for i in range(count)}
            told = {i for i, part in places.items() if part in there.outcomes}
            expected.update((places[i], True) for i in told)
            if told:
                expected[context + b"\nleft"] = True
                assert int(there.outcomes[context + b"\nleft"]) == count - len(told) > 0
            if first > 0:
                numbers |= {first + i for i in places.keys() - told}
        assert there.outcomes.keys() == expected.keys()
        numbers |= self.orphans
        assert [number for number, _ in there.log] == sorted(numbers - self.aside)
        # A message that may have been sent was recorded; one that was tried may have been sent.
        last, sent, tried = (int(there.meta.get(each, 0)) for each in (b"last", b"sent", b"tried"))
        assert max([0, *numbers]) <= last
        assert tried <= sent <= last
        # Only the lease and the callers' answers end by themselves, and results that are to.
        ending = {name for name, left in there.ends.items() if left != -1}
        ending.discard(self.pair.key("quarantine"))
        dead = {self.pair.key(part) for part in DEAD_PARTS}
        assert dead & there.ends.keys() <= ending
        assert ending - dead <= there.strings.keys()
        assert all(":result:" in name for name in there.strings.keys() - ending)

    @invariant()
    def dead_letters_are_all_accounted_for(self) -> None:
        """Each that was kept is there, or counted as what became of it."""
        there = self.state
        assert there.dead.keys() == there.dead_letters.keys() == there.dead_bodies.keys()
        causes = Counter(Letter.decode(each).cause for each in there.dead_letters.values())
        counts = {name: int(value) for name, value in there.dead_counts.items()}
        assert counts.pop(b"bytes", 0) == sum(map(len, there.dead_bodies.values()))
        assert {name: count for name, count in counts.items() if b" " in name} == causes
        came = counts.get(b"recorded", 0) + counts.get(b"restored", 0)
        went = sum(counts.get(name, 0) for name in _WENT)
        assert came == len(there.dead) + went


class DurableMachine(LaneMachine):
    """The same, with a Redis that is killed now and then."""

    @rule(step=_steps(STEPS))
    def step(self, step: tuple[str, dict[str, Any]]) -> None:
        """Call a script, or let something happen."""
        name, arguments = step
        getattr(self, name)(**arguments)


def _head(record: bytes) -> tuple[int, int]:
    """First number, and count of messages."""
    found = _RECORD.match(record)
    assert found is not None
    return int(found[1]), int(found[2])


def _label(label: bytes, frame: bytes) -> str:
    """What Pulsar echoes of a message that `read` gave; nothing of one that may not be sent."""
    return label.decode() if label or not frame else label_in(frame)


def _stand(state: State, context: bytes) -> states.State:
    if context not in state.contexts:
        return states.State.ABSENT
    return states.State.DUE if context in state.due else states.State.PENDING


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that may be flushed and killed, with its data in a file."""
    require(redis_module.missing_reason())
    # Every answer waits for the write, none for the disk: enough for `kill -9`.
    folder: Path = tmp_path_factory.mktemp("machine")
    with RedisServer(folder, appendonly=True, config={"appendfsync": "no"}) as server:
        yield server


def _run(machine: type[LaneMachine], server: RedisServer, chosen: settings) -> None:
    # Hypothesis only calls it, though it asks for a class.
    make: Any = lambda: machine(server)  # noqa: E731
    run_state_machine_as_test(make, settings=chosen)


@pytest.mark.timeout(600)
def test_the_scripts_do_what_the_model_says(server: RedisServer) -> None:
    """Whatever is called, in whatever order."""
    _run(LaneMachine, server, chosen_settings(60, 40))


@pytest.mark.timeout(600)
def test_a_redis_that_was_killed_has_it_all(server: RedisServer) -> None:
    """And goes on with it."""
    _run(DurableMachine, server, chosen_settings(8, 40))


@pytest.fixture
def pair(server: RedisServer) -> Iterator[Pair]:
    """A lane that "one" owns, with its fencing token 1."""
    with redis.Redis.from_url(server.url) as client:
        pair = Pair(client, "pair")
        pair.call("lease", "one", 5 * UNIT, "g")
        yield pair
        client.flushall()


def test_what_has_lost_its_record_is_dropped(pair: Pair) -> None:
    """There is nothing to tell, and nobody to tell it: effects and deadlines are not looked at
    again and again."""
    for context in "abc":
        pair.call("put", context, context, "{}", UNIT, 0, 0, UNIT, "f", context, "frame")
    pair.call("settle", "", "t", UNIT, "a", "", -1, "{}", "ok", "b", "", -1, "{}", "ok")
    pair.change("contexts", b"a", None)
    pair.change("outcomes", b"b", None)
    pair.change("contexts", b"c", None)
    pair.leap(2 * UNIT)
    assert pair.call("due", "one:1", UNIT, 100, -1) == [0]
    assert pair.call("expire", UNIT, 100, "") == []
    assert (pair.state.due, pair.state.deadlines) == ({}, {})


def test_a_lane_may_hold_more_than_one_look_takes(pair: Pair) -> None:
    """Due effects are found part by part: by their place, or as their time comes."""
    for context in "abcde":
        pair.call("put", context, context, "{}", UNIT, 0, 0, UNIT, "f", context, "frame")
        pair.call("settle", "", "t", UNIT, context, "", -1, "{}", "ok")
    for offset, expected in ((0, [b"a", b"b"]), (2, [b"c", b"d"]), (4, [b"e"]), (5, [])):
        assert pair.call("due", "one:1", UNIT, 2, offset)[1::3] == expected
    pair.leap(2 * UNIT)
    for expected in ([b"a", b"b"], [b"c", b"d"], [b"e"], []):
        assert pair.call("due", "one:1", UNIT, 2, -1)[1::3] == expected


@pytest.mark.parametrize("count", [31, 32, 33, 64, 65])
def test_a_lane_is_read_step_by_step(pair: Pair, count: int) -> None:
    """All of it, whatever the size of a step; and as far as bytes, count and gaps allow."""
    messages = [each for place in range(count) for each in (f"a\t{place}", "12345")]
    pair.call("put", "t", "a", "{}", UNIT, 0, 0, UNIT, "f", *messages)
    for limit, size, expected in (
        (1000, 1000, count),
        (count, 5 * count, count),
        (count - 1, 1000, count - 1),
        (1000, 5 * count - 1, count - 1),
        (1000, 52, 10),
    ):
        found = pair.call("read", "one:1", 0, limit, size, 1, 1, 0, "")
        assert found[2::5] == list(range(1, expected + 1))
    pair.call("settle", "", "s", UNIT, "a", "", 20, "{}", "ok")
    assert pair.call("read", "one:1", 0, 1000, 1000, 1, 1, 0, "")[-5] == 20
    assert len(pair.call("read", "one:1", 0, 1000, 1000, 1, 0, 0, "")[2::5]) == count - 1
    assert pair.call("read", "one:1", count, 10, 10, 1, 1, 0, "") == [0, b""]


def test_under_a_new_generation_messages_are_tried_anew(pair: Pair) -> None:
    """What may have been sent stays so; what was tried under this name begins at nothing."""
    for context in "abc":
        pair.call("put", context, context, "{}", UNIT, 0, 0, UNIT, "f", context, "frame")
    pair.call("read", "one:1", 0, 3, 1000, 1, 1, 0, "")
    pair.call("generation", "one:1", "g", "h")
    pair.call("read", "one:1", 0, 2, 1000, 1, 1, 3, "")
    assert (pair.state.meta[b"sent"], pair.state.meta[b"tried"]) == (b"3", b"2")


def test_a_mark_stays_until_a_read_goes_further(pair: Pair) -> None:
    """Also where only what was tried is noted; a read up to the message tells of the mark."""
    pair.call("put", "t", "a", "{}", UNIT, 0, 0, UNIT, "f", "a", "frame")
    pair.call("complete", "one:1", "t", 1, 0, 0, "gone", "", "0 ", "", 2)
    pair.call("put", "u", "b", "{}", UNIT, 0, 0, UNIT, "f", "b", "frame")
    marked = pair.state.meta[b"marked"]
    pair.call("generation", "one:1", "g", "h")
    known = f"2 {marked.decode()}"
    assert pair.call("read", "one:1", 0, 1, 1000, 1, 0, known, "")[:2] == [0, b""]
    assert pair.call("read", "one:1", 0, 2, 1000, 1, 0, known, "")[:2] == [0, marked]
    assert pair.state.meta[b"marked"] == marked
    pair.call("put", "v", "c", "{}", UNIT, 0, 0, UNIT, "f", "c", "frame")
    assert pair.call("read", "one:1", 0, 3, 1000, 1, 0, known, "")[:2] == [0, b""]
    assert b"marked" not in pair.state.meta


def test_a_backlog_of_one_is_a_backlog(pair: Pair) -> None:
    """The smallest bound there is."""
    for context, answer in (("a", [b"new", 1]), ("b", [b"full", 1]), ("a", [b"known", 1])):
        arguments = (f"t{answer}", context, "{}", UNIT, 1, 0, UNIT, "f", context, "frame")
        assert pair.call("put", *arguments) == answer


def test_a_reservation_is_used_up_by_what_is_put_with_it(pair: Pair) -> None:
    """Part by part, and then it is gone."""
    pair.call("reserve", "r:1", 3, 6, 5 * UNIT)
    for context, count, left in (("a", 1, b"2"), ("b", 2, None)):
        messages = ["", "frame"] * count
        pair.call("put", f"{context}:1", context, "{}", UNIT, "r:1", 0, UNIT, "f", *messages)
        found = pair.state.reserved.get(b"r:1")
        assert (found and found.split()[0]) == left


def test_reservations_count_together(pair: Pair) -> None:
    """Each for as long as it holds; one that is taken back counts no more."""
    for name, ms, held in (("a:1", UNIT, 0), ("b:1", 3 * UNIT, 2), ("c:1", 5 * UNIT, 4)):
        assert pair.call("reserve", name, 2, 6, ms) == [1, held]
    assert pair.call("reserve", "d:1", 1, 6, UNIT) == [0, 6]
    pair.leap(2 * UNIT)
    assert pair.call("reserve", "d:1", 3, 6, UNIT) == [0, 4]
    assert pair.call("reserve", "c:1", 0, 6, UNIT) == [1, 2]
    assert pair.call("reserve", "d:1", 3, 6, UNIT) == [1, 2]


def test_a_tombstone_is_known_until_it_ends(pair: Pair) -> None:
    """And then the context may be put again."""
    for token in ("first", "second", "third"):
        arguments = (token, "a", "{}", UNIT, 0, UNIT, UNIT, "f", "a", "frame")
        known = token == "second"
        assert pair.call("put", *arguments)[0] == (b"known" if known else b"new")
        pair.call("settle", "", f"{token} s", UNIT, "a", "", -1, "{}", "ok")
        pair.call("finish", "a", "")
        if known:
            pair.leap(2 * UNIT)


@pytest.mark.parametrize("count", [999, 1000, 1001])
def test_lists_of_any_length_are_settled_in_runs(pair: Pair, count: int) -> None:
    """In whatever parts, in whatever order, the list is told whole and in its order."""
    messages = [each for _ in range(count) for each in ("", "frame")]
    pair.call("put", "t", "a", "{}", UNIT, 0, 0, UNIT, "f", *messages)
    runs = [range(700, count), range(300, 700), range(1, 300), range(1)]
    answers = []
    for token, places in enumerate(runs):
        outcomes = [each for i in places for each in ("a", "", i, f'{{"n":{i}}}', "ok")]
        answers += pair.call("settle", "", f"t{token}", UNIT, *outcomes)[1:]
    assert answers[:-1] == [[b"part"]] * (count - 1)
    expected = ",".join(f'{{"n":{i}}}' for i in range(count))
    assert answers[-1][::2] == [b"due", f"[{expected}]".encode()]
    assert (pair.state.log, pair.state.deadlines) == ([], {})


@pytest.mark.parametrize("count", [999, 1000, 1001, 2001])
@pytest.mark.parametrize("how", ["revoke", "expire", "all"])
def test_lists_of_any_length_end_together(pair: Pair, count: int, how: str) -> None:
    """What has an outcome keeps it; the others get that of the end, in the order of the list."""
    messages = [each for _ in range(count) for each in ("", "frame")]
    pair.call("put", "t", "a", "{}", UNIT, 0, 0, UNIT, "f", *messages)
    pair.call("settle", "", "s", UNIT, "a", "", count - 1, '{"n":1}', "ok")
    if how == "revoke":
        list_of_all = pair.call("revoke", "r", UNIT, "a", "", '{"n":0}')[0][2]
    elif how == "expire":
        pair.leap(2 * UNIT)
        list_of_all = pair.call("expire", UNIT, 10, "")[2]
    else:
        list_of_all = pair.call("settle", "", "e", UNIT, "a", "", -1, '{"n":0}', "ok")[1][2]
    others = {"revoke": '{"n":0},' * (count - 1), "expire": "0," * (count - 1), "all": ""}[how]
    last = '{"n":0}' if how == "all" else '{"n":1}'
    assert list_of_all == f"[{others}{last}]".encode()
    assert (pair.state.log, pair.state.deadlines) == ([], {})
    assert list(pair.state.outcomes) == [b"a"]


def test_a_list_whose_messages_are_elsewhere(pair: Pair) -> None:
    """Is settled in runs, too: no entry of this lane is its own."""
    pair.call("put", "t1", "b", "{}", UNIT, 0, 0, UNIT, "f", "", "frame")
    pair.call("put", "t2", "a", "{}", UNIT, 0, 0, UNIT, "f", *["", ""] * 3)
    pair.call("settle", "", "t3", UNIT, "a", "", 0, "{}", "ok", "a", "", 1, "{}", "ok")
    assert [number for number, _ in pair.state.log] == [1]
    assert pair.call("settle", "", "t4", UNIT, "a", "", 2, "{}", "ok")[1][0] == b"due"


def test_a_run_that_comes_twice_counts_once(pair: Pair) -> None:
    """The second outcomes change nothing, and the list still waits for the others."""
    pair.call("put", "t", "a", "{}", UNIT, 0, 0, UNIT, "f", *["", "frame"] * 5)
    for token in ("one", "two"):
        given = [each for place in (0, 1) for each in ("a", "", place, f'{{"by":"{token}"}}', "ok")]
        pair.call("settle", "", token, UNIT, *given)
    assert pair.state.outcomes == {
        b"a\nleft": b"3",
        b"a\n0": b'{"by":"one"}',
        b"a\n1": b'{"by":"one"}',
    }


@pytest.mark.parametrize(
    ("outcomes", "answers"),
    [
        ([(0, "ok"), (2, "ok")], [b"part", b"late"]),
        ([(3, "ok"), (0, "ok")], [b"late", b"part"]),
        ([(0, "ok"), (-1, "ok")], [b"part", b"due"]),
        ([(-1, "ok"), (0, "ok")], [b"due", b"due"]),
        ([(0, "ok"), (0, "ok")], [b"part", b"part"]),
        ([(0, "ok"), (1, "error")], [b"part", b"due"]),
        ([(0, "error"), (1, "ok")], [b"part", b"due"]),
        ([(0, "foreign"), (1, "ok")], [b"ignored", b"part"]),
        ([(1, "ok"), (0, "foreign")], [b"part", b"ignored"]),
    ],
)
def test_what_is_no_run_is_settled_one_by_one(
    pair: Pair, outcomes: list[tuple[int, str]], answers: list[bytes]
) -> None:
    """Each gets the answer that it would get by itself."""
    pair.call("put", "t", "a", "{}", UNIT, 0, 0, UNIT, "f", *["", "frame"] * 2)
    given = [
        each for place, kind in outcomes for each in ("a", "", place, f'{{"n":{place}}}', kind)
    ]
    found = pair.call("settle", "one:1", "t", UNIT, *given)[1:]
    assert [each[0] for each in found] == answers


@pytest.mark.parametrize(
    "done", [*itertools.combinations("abcd", 2), *itertools.combinations("abcd", 3)]
)
def test_of_a_lane_goes_what_is_completed_and_nothing_else(
    pair: Pair, done: tuple[str, ...]
) -> None:
    """Whether it is the lane's beginning, which goes at once, or lies apart."""
    for context in "abcd":
        pair.call("put", context, context, "{}", UNIT, 0, 0, UNIT, "q", "", "frame")
    assert pair.call("complete", "one:1", "t", len(done), 0, 0, *done, *[""] * len(done)) == [0, 0]
    left = [number for number, context in enumerate("abcd", 1) if context not in done]
    assert [number for number, _ in pair.state.log] == left


def test_a_completed_context_is_buried(pair: Pair) -> None:
    """Where its put may come again, it is known."""
    arguments = ("a", "{}", UNIT, 0, UNIT, UNIT, "f", "", "frame")
    pair.call("put", "t1", *arguments)
    assert pair.call("complete", "one:1", "c", 1, 0, 0, "a", "") == [0, 0]
    assert pair.call("put", "t2", *arguments) == [b"known", 0]
    pair.leap(2 * UNIT)
    assert pair.call("put", "t3", *arguments) == [b"new", 2]


def test_a_completion_forgets_tombstones_that_have_ended(pair: Pair) -> None:
    """Even if the contexts that it completes have none."""
    for context, tombstone in (("a", UNIT), ("b", 0)):
        pair.call("put", context, context, "{}", 5 * UNIT, 0, tombstone, UNIT, "q", "", "frame")
    pair.call("complete", "one:1", "first", 1, 0, 0, "a", "")
    assert pair.state.tombstones.keys() == {b"a"}
    pair.leap(2 * UNIT)
    assert pair.call("complete", "one:1", "second", 1, 0, 0, "b", "") == [0, 0]
    assert pair.state.tombstones == {}


def test_a_read_that_finds_nothing_marks_nothing(pair: Pair) -> None:
    """Even if it begins behind the last message."""
    pair.call("put", "t", "a", "{}", UNIT, 0, 0, UNIT, "q", "a", "frame")
    assert pair.call("read", "one:1", 5, 10, 1000, 1, 0, "0 ", "") == [0, b""]
    assert b"sent" not in pair.state.meta


def test_a_lane_with_a_message_does_not_retire(pair: Pair) -> None:
    """Not even where the message's context is gone."""
    pair.call("put", "t", "a", "{}", UNIT, 0, 0, UNIT, "f", "a", "frame")
    pair.change("contexts", b"a", None)
    assert pair.call("retire", "one:1", 0, dead="0 0 0") == 0


def fail(pair: Pair, *contexts: str, bounds: str, count: int = 1) -> None:
    """Let the deadlines of contexts pass, each with so many messages; they are kept."""
    for each in contexts:
        pair.call("put", each, each, "{}", UNIT, 0, 0, UNIT, "f", *["", "frame"] * count)
    pair.leap(2 * UNIT)
    pair.call("expire", UNIT, 100, "", "ProduceError deadline", dead=bounds)


def test_several_dead_letters_are_confirmed_together(pair: Pair) -> None:
    """Each by its own number."""
    bounds = f"100 100000 {20 * UNIT}"
    fail(pair, "a", "b", "c", "d", bounds=bounds)
    assert pair.call("confirm", "a", 1, "b", 3, "d", 4, dead=bounds) == 2
    assert set(pair.state.dead) == {b"b", b"c"}


def test_a_call_lets_as_many_dead_letters_go_as_it_keeps(pair: Pair) -> None:
    """However many that are: they never stay above their number."""
    fail(pair, "a", bounds=f"5 100000 {20 * UNIT}", count=210)
    assert len(pair.state.dead) == 5
    assert pair.state.dead_counts[b"evicted"] == b"205"


def test_dead_letters_above_a_lowered_number_go_some_at_a_time(pair: Pair) -> None:
    """One call does not hold up Redis for all of them; it need not keep any itself."""
    fail(pair, "a", bounds=f"1000 100000 {20 * UNIT}", count=410)
    lowered = f"5 100000 {20 * UNIT}"
    fail(pair, "b", bounds=lowered)
    assert len(pair.state.dead) == 210
    for left in (10, 5):
        assert pair.call("expire", UNIT, 100, "", "", dead=lowered) == []
        assert len(pair.state.dead) == left
    assert pair.state.dead_counts[b"evicted"] == b"406"


def test_a_call_that_keeps_no_dead_letter_leaves_those_within_their_number(pair: Pair) -> None:
    """One past its age, too, so that it costs nothing; they have no longer to live by it."""
    bounds = f"2 100000 {9 * UNIT}"
    for context in "ab":
        fail(pair, context, bounds=bounds)
        pair.leap(4 * UNIT)
    assert pair.call("expire", UNIT, 100, "", "", dead=bounds) == []
    assert set(pair.state.dead) == {b"a", b"b"}
    assert pair.call("expire", UNIT, 100, "", "", dead=f"1 100000 {9 * UNIT}") == []
    assert set(pair.state.dead) == {b"b"}
    assert pair.state.dead_counts[b"outdated"] == b"1"
    pair.leap(6 * UNIT)
    assert pair.state.dead == {}


def test_a_call_settles_a_bounded_number_of_overdue_messages(pair: Pair) -> None:
    """It stops behind the context that makes them enough; the next call settles the others."""
    for context, count in (("a", 499), ("b", 2), ("c", 0), ("d", 600), ("e", 1)):
        frames = ["", "frame"] * count
        pair.call("put", context, context, "{}", UNIT, 0, 0, UNIT, "f", *frames)
    pair.leap(2 * UNIT)
    for contexts in ([b"a", b"b"], [b"c", b"d"], [b"e"], []):
        assert pair.call("expire", UNIT, 100, "")[::3] == contexts
    assert pair.state.log == []


def test_dead_letters_may_have_as_many_bytes_as_their_bound(pair: Pair) -> None:
    """And not one more; the oldest goes first."""
    fail(pair, "a", "b", bounds=f"100 100000 {20 * UNIT}")
    size = int(pair.state.dead_counts[b"bytes"]) // 2
    fail(pair, "c", bounds=f"100 {3 * size} {20 * UNIT}")
    assert set(pair.state.dead) == {b"a", b"b", b"c"}
    fail(pair, "d", bounds=f"100 {4 * size - 1} {20 * UNIT}")
    assert set(pair.state.dead) == {b"b", b"c", b"d"}


def test_a_dead_letter_past_its_age_goes_when_another_comes(pair: Pair) -> None:
    """One by one, and it is counted."""
    bounds = f"100 100000 {9 * UNIT}"
    for context, expected in (("a", b"a"), ("b", b"ab"), ("c", b"bc")):
        fail(pair, context, bounds=bounds)
        assert b"".join(sorted(pair.state.dead)) == expected
        pair.leap(3 * UNIT)
    assert pair.state.dead_counts[b"outdated"] == b"1"


def test_a_context_without_messages_ends_at_its_deadline(pair: Pair) -> None:
    """It has one outcome, by which nothing was sent; nothing is a dead letter."""
    pair.call("put", "t", "a", "{}", UNIT, 0, 0, UNIT, "f")
    pair.leap(2 * UNIT)
    found = pair.call("expire", UNIT, 10, "", "E x", dead=f"100 100000 {9 * UNIT}")
    assert (found[0], found[2]) == (b"a", b"[0]")
    assert pair.state.dead == {}


@pytest.mark.parametrize("count", [1, 3])
def test_an_attempt_that_is_tried_again_leaves_no_dead_letter(pair: Pair, count: int) -> None:
    """Neither of a message nor of any of a list; that of another attempt stays, and is told."""
    bounds = f"100 100000 {20 * UNIT}"
    fail(pair, "other", bounds=bounds)
    fail(pair, "a", bounds=bounds, count=count)
    assert len(pair.state.dead) == 1 + count
    assert pair.call("give_up", "a", 2, "", dead=bounds) == 1
    assert set(pair.state.dead) == {b"other"}
    assert pair.state.dead_counts[b"retried"] == b"%d" % count
    assert pair.call("give_up", "a", 2, "", dead=bounds) == 0


def test_effects_that_failed_keep_the_dead_letter_of_their_message(pair: Pair) -> None:
    """A message that failed has one already; one of an earlier attempt counts as a failure."""
    bounds = f"100 100000 {20 * UNIT}"
    fail(pair, "a", bounds=bounds)
    assert pair.call("give_up", "a", 1, "RuntimeError x", dead=bounds) == 1
    assert Letter.decode(pair.state.dead_letters[b"a"]).kind == b"m"
    pair.call("put", "a2", "a", "{}", UNIT, 0, 0, UNIT, "f", "", "frame")
    pair.call("settle", "", "s", UNIT, "a", "", -1, "{}", "ok")
    assert pair.call("give_up", "a", 2, "RuntimeError x", dead=bounds) == 1
    letter = Letter.decode(pair.state.dead_letters[b"a"])
    assert (letter.kind, letter.failures) == (b"e", 2)


def test_giving_up_prunes_tombstones(pair: Pair) -> None:
    """Those that have ended by then."""
    for context in "ab":
        pair.call("put", context, context, "{}", UNIT, 0, UNIT, UNIT, "f", context, "frame")
        pair.call("settle", "", f"{context} s", UNIT, context, "", -1, "{}", "ok")
        pair.call("give_up", context, "", "")
        pair.leap(2 * UNIT)
    assert set(pair.state.tombstones) == {b"b"}


def test_a_generation_that_is_left_is_no_hold_s_own(pair: Pair) -> None:
    """Nothing new is sent under it; the next one is begun by this hold."""
    pair.call("generation", "one:1", "", "g")
    assert pair.state.meta[b"begun_by"] == b"1"
    assert pair.call("generation", "one:1", "g", "") == [0, b"g"]
    assert b"begun_by" not in pair.state.meta
    pair.call("generation", "one:1", "g", "h")
    assert (pair.state.meta[b"begun_by"], pair.state.meta[b"generation"]) == (b"1", b"h")
