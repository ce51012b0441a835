"""What a ledger says: Jepsen's sets, and the promises that do not hold. No I/O.

Words. *Accepted*: the call returned. *In doubt*: the call was begun, and raised, or its process was
killed. *Found*: in the topic, read by a client of its own.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["GRACE", "Promise", "Sets", "accepted", "check"]

#: How long after a deadline its outcome may come, in seconds.
GRACE = 15.0
_STORED = frozenset(("stored", "deduplicated"))


@dataclass(frozen=True)
class Promise:
    """What a fault may lead to; by default nothing but copies in the topic.

    Args:
        failures: whether messages may be refused or unknown.
        order: whether each lane is in order.
        duplicates: how many copies there may be; None for any number.
        forgotten: whether what was told as stored may be gone, because somebody deleted it.
        callbacks: whether each context that asks for one has its callback.
        any_copies: whether there may be any number of copies, at least once.
        may_fail: ids of messages that may be refused or unknown in any case.
    """

    failures: bool = False
    order: bool = True
    duplicates: int | None = None
    forgotten: bool = False
    callbacks: bool = True
    any_copies: bool = False
    may_fail: frozenset[str] = frozenset()


@dataclass
class Sets:
    """What one run came to: the ids in each set, or how many."""

    attempted: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    found: Counter[str] = field(default_factory=Counter)
    #: Accepted, not found, and not told as a failure: silence, or a false receipt.
    lost: set[str] = field(default_factory=set)
    #: Found, and never attempted.
    unexpected: set[str] = field(default_factory=set)
    #: How many copies there are beyond the first of each.
    duplicated: int = 0
    #: In doubt, and found.
    recovered: set[str] = field(default_factory=set)
    #: Found behind a later one of the same lane.
    out_of_order: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    deduplicated: set[str] = field(default_factory=set)
    #: Refused, and yet in the topic.
    refused_found: set[str] = field(default_factory=set)
    #: Accepted, and without an outcome at the end.
    open: set[str] = field(default_factory=set)
    #: Their outcome came too long after their deadline.
    late: set[str] = field(default_factory=set)
    callbacks_wanted: int = 0
    callbacks_missing: set[str] = field(default_factory=set)
    callbacks_repeated: int = 0
    #: Contexts whose callback came under more than one task id.
    callbacks_other_id: set[str] = field(default_factory=set)
    #: Contexts that got `on_ack` and `on_error`.
    both_outcomes: set[str] = field(default_factory=set)
    #: How long callers waited that wait, and those who waited too long.
    waits: list[float] = field(default_factory=list)
    late_waits: set[str] = field(default_factory=set)
    #: By fault: how many messages were in flight when it struck.
    strikes: list[int] = field(default_factory=list)
    #: What a kind measured: name, figure, and its bound.
    bounds: list[tuple[str, float, float]] = field(default_factory=list)
    #: How long after the last fault was over the last outcome came, in seconds.
    recovery: float = 0.0

    def counts(self) -> dict[str, Any]:
        """All of it as numbers; of the waits the longest, of the strikes the list."""
        made: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "waits":
                made["waits"], made["longest_wait"] = len(value), round(max(value, default=0.0), 2)
            elif each.name == "found":
                made["found"] = len(value)
            elif each.name in {"strikes", "bounds"}:
                made[each.name] = list(value)
            elif isinstance(value, set | list):
                made[each.name] = len(value)
            else:
                made[each.name] = value
        return made

    def broken(self, promise: Promise) -> list[str]:
        """Say which promises do not hold, each with some ids."""
        return list(self._broken(promise))

    def _broken(self, promise: Promise) -> Iterator[str]:
        if not promise.forgotten:
            yield from _some("P1 lost", self.lost)
        yield from _some("P1 not attempted, and in the topic", self.unexpected)
        yield from _some("P2 without an outcome", self.open)
        yield from _some("P2 settled past its deadline", self.late)
        yield from _some("P2 waited past its deadline", self.late_waits)
        yield from _some("P3 refused, and in the topic", self.refused_found)
        yield from _some("P3 both outcomes", self.both_outcomes)
        if promise.callbacks:
            yield from _some("P4 without its callback", self.callbacks_missing)
        yield from _some("P4 a callback under another id", self.callbacks_other_id)
        if promise.order:
            yield from _some("P5 out of order", self.out_of_order)
        if promise.duplicates is not None and self.duplicated > promise.duplicates:
            yield f"P6 {self.duplicated} copies; at most {promise.duplicates} are allowed"
        if not promise.failures:
            yield from _some("refused", self.refused - promise.may_fail)
            yield from _some("unknown", self.unknown - promise.may_fail)
        for name, figure, bound in self.bounds:
            if figure > bound:
                yield f"P7 {name}: {figure:g}; at most {bound:g}"


def _some(what: str, ids: Iterable[str]) -> Iterator[str]:
    found = sorted(ids)
    if found:
        yield f"{what}: {len(found)}, as {', '.join(found[:3])}"


def accepted(
    id_: str, lane: int | None, number: int, *, callback: bool = False
) -> list[dict[str, Any]]:
    """Return the events of a call that returned, where only what came of it is looked at."""
    call = {"lane": lane, "number": number, "timeout": math.inf, "callback": callback}
    return [
        {"event": "attempt", "id": id_, "at": 0.0, **call},
        {"event": "accepted", "id": id_, "at": 0.0},
    ]


def check(events: Iterable[dict[str, Any]]) -> Sets:
    """Read a ledger's events, in any order but that of `found`, which is the topic's."""
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for each in events:
        by_name[each["event"]].append(each)
    sets = Sets()
    calls = {each["id"]: each for each in by_name["attempt"]}
    sets.attempted = set(calls)
    accepted = {each["id"]: each["at"] for each in by_name["accepted"]}
    sets.accepted = set(accepted)
    sets.found = Counter(each["id"] for each in by_name["found"])
    sets.strikes = [each["in_flight"] for each in by_name["strike"]]
    sets.bounds = [(each["name"], each["figure"], each["bound"]) for each in by_name["bound"]]
    outcomes = {each["id"]: each for each in by_name["outcome"]}
    _waits(sets, by_name["wait"], outcomes)
    _outcomes(sets, calls, accepted, outcomes)
    _order(sets, calls, by_name["found"])
    _callbacks(sets, calls, outcomes, by_name["callback"])
    over = max((each["at"] for each in by_name["healed"]), default=None)
    if over is not None:
        told = (each["at"] for each in outcomes.values())
        sets.recovery = round(max(0.0, max(told, default=over) - over), 2)
    return sets


def _waits(sets: Sets, waits: list[dict[str, Any]], outcomes: dict[str, dict[str, Any]]) -> None:
    for each in waits:
        sets.waits.append(each["took"])
        if each["took"] > each["timeout"] + GRACE:
            sets.late_waits.add(each["id"])
        if each["status"] is not None:
            sets.accepted.add(each["id"])
            outcomes[each["id"]] = each


def _outcomes(
    sets: Sets,
    calls: dict[str, dict[str, Any]],
    accepted: dict[str, float],
    outcomes: dict[str, dict[str, Any]],
) -> None:
    for status in ("refused", "unknown", "deduplicated"):
        named = {id_ for id_, each in outcomes.items() if each["status"] == status}
        setattr(sets, status, named)
    # One whose caller waits has a short deadline, and may fail: its call says what became of it.
    waited = {id_ for id_, each in outcomes.items() if each["event"] == "wait"}
    failed = sets.refused | sets.unknown
    stored = {id_ for id_, each in outcomes.items() if each["status"] in _STORED}
    found = set(sets.found)
    sets.lost = ((sets.accepted | stored) - failed) - found
    sets.unexpected = found - sets.attempted
    sets.recovered = (sets.attempted - sets.accepted) & found
    sets.refused_found = sets.refused & found
    sets.open = sets.accepted - set(outcomes)
    sets.duplicated = sets.found.total() - len(sets.found)
    sets.refused, sets.unknown = sets.refused - waited, sets.unknown - waited
    for id_, each in outcomes.items():
        call = calls.get(id_)
        if call is None:
            continue
        # The deadline counts from the call that recorded it, which may have been tried again.
        recorded = accepted.get(id_, call["at"])
        if each["at"] > recorded + call["timeout"] + GRACE:
            sets.late.add(id_)


def _order(sets: Sets, calls: dict[str, dict[str, Any]], found: list[dict[str, Any]]) -> None:
    lanes: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for id_ in dict.fromkeys(each["id"] for each in found):
        call = calls.get(id_)
        if call is not None and call["lane"] is not None:
            lanes[str(call["lane"])].append((call["number"], id_))
    for numbers in lanes.values():
        sets.out_of_order += [
            later[1] for before, later in itertools.pairwise(numbers) if before[0] > later[0]
        ]


def _callbacks(
    sets: Sets,
    calls: dict[str, dict[str, Any]],
    outcomes: dict[str, dict[str, Any]],
    callbacks: list[dict[str, Any]],
) -> None:
    ids: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for each in callbacks:
        ids[each["id"]][each["which"]].add(each["task"])
    wanted = {id_ for id_, call in calls.items() if call["callback"]}
    sets.callbacks_wanted = len(wanted & set(outcomes))
    sets.callbacks_missing = (wanted & sets.accepted & set(outcomes)) - set(ids)
    sets.callbacks_repeated = len(callbacks) - sum(len(each) for each in ids.values())
    sets.both_outcomes = {id_ for id_, each in ids.items() if len(each) > 1}
    sets.callbacks_other_id = {
        id_ for id_, each in ids.items() if any(len(tasks) > 1 for tasks in each.values())
    }
