"""The checker: each set from a small ledger, and each promise that it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.checker import Promise, Sets, accepted, check
from tests.faults.ledger import Ledger, read_ledger

Events = list[dict[str, Any]]


def called(number: int, *, lane: int | None = 0, callback: bool = False) -> Events:
    """A call that returned."""
    return [*attempted(number, lane=lane, callback=callback), event("accepted", number)]


def attempted(number: int, *, lane: int | None = 0, callback: bool = False) -> Events:
    """A call that was begun."""
    more = {"lane": lane, "number": number, "timeout": 60.0, "callback": callback}
    return [event("attempt", number, **more)]


def event(event: str, which_message: int, **more: Any) -> dict[str, Any]:
    return {"event": event, "id": f"m{which_message}", "at": 100.0, **more}


def told(number: int, status: str = "stored", at: float = 101.0) -> Events:
    return [event("outcome", number, status=status, at=at)]


def found(*numbers: int) -> Events:
    return [event("found", number) for number in numbers]


def acked(number: int, task: str = "t", which: str = "on_ack") -> Events:
    return [event("callback", number, which=which, task=task)]


def names(sets: Sets, promise: Promise | None = None) -> list[str]:
    """The broken promises, each up to its colon."""
    return [each.partition(":")[0] for each in sets.broken(promise or Promise())]


def test_all_is_well() -> None:
    events = [each for n in range(5) for each in called(n, callback=n == 0) + told(n)]
    sets = check([*events, *found(0, 1, 1, 2, 3, 4), *acked(0)])
    assert sets.broken(Promise()) == []
    counts = sets.counts()
    assert (counts["attempted"], counts["accepted"], counts["found"]) == (5, 5, 5)
    assert (counts["duplicated"], counts["callbacks_wanted"]) == (1, 1)


@pytest.mark.parametrize(
    ("events", "broken"),
    [
        (called(0) + told(0), "P1 lost"),
        (called(0) + told(0) + found(0, 9), "P1 not attempted, and in the topic"),
        (called(0) + found(0), "P2 without an outcome"),
        (called(0) + told(0, at=100 + 60 + 16) + found(0), "P2 settled past its deadline"),
        (called(0) + told(0, "unknown") + found(0), "unknown"),
        (called(0) + told(0, "refused"), "refused"),
        (called(0, callback=True) + told(0) + found(0), "P4 without its callback"),
        (
            called(0, callback=True) + told(0) + found(0) + acked(0, "t") + acked(0, "u"),
            "P4 a callback under another id",
        ),
        (
            called(0, callback=True) + told(0) + found(0) + acked(0) + acked(0, "u", "on_error"),
            "P3 both outcomes",
        ),
        (called(0) + called(1) + told(0) + told(1) + found(1, 0), "P5 out of order"),
    ],
)
def test_each_promise(events: Events, broken: str) -> None:
    assert names(check(events)) == [broken]


def test_refused_and_found() -> None:
    sets = check(called(0) + told(0, "refused") + found(0))
    assert names(sets, Promise(failures=True)) == ["P3 refused, and in the topic"]


def test_nothing_is_lost_in_silence_only() -> None:
    """Lost is what was accepted and is neither there nor told as a failure."""
    sets = check(called(0) + told(0, "unknown") + called(1))
    assert (sets.lost, sets.open) == ({"m1"}, {"m1"})


def test_a_call_in_doubt_may_be_found_or_not() -> None:
    sets = check(attempted(0) + attempted(1) + found(1))
    assert sets.broken(Promise()) == []
    assert sets.recovered == {"m1"}


def test_copies_are_allowed_up_to_a_number() -> None:
    sets = check(called(0) + told(0) + found(0, 0, 0))
    assert sets.broken(Promise(duplicates=2)) == []
    assert names(sets, Promise(duplicates=1)) == ["P6 2 copies; at most 1 are allowed"]


def test_what_a_kind_measured() -> None:
    """Each figure that is above its bound breaks a promise."""
    figures = [("memory", 3.0, 20.0), ("threads", 2.0, 0.0)]
    sets = check([event("bound", 0, name=n, figure=f, bound=b) for n, f, b in figures])
    assert sets.broken(Promise()) == ["P7 threads: 2; at most 0"]


def test_a_message_that_may_fail() -> None:
    sets = check(called(0) + told(0, "unknown") + called(1) + told(1, "unknown"))
    assert sets.broken(Promise(may_fail=frozenset(("m0",)))) == ["unknown: 1, as m1"]


def test_lanes_and_copies_do_not_disturb_the_order() -> None:
    events = called(0, lane=0) + called(1, lane=1) + called(2, lane=0)
    events += told(0) + told(1) + told(2)
    assert check(events + found(1, 0, 2, 0)).out_of_order == []


def test_a_message_without_a_lane_has_no_order() -> None:
    events = called(0, lane=None) + called(1, lane=None) + told(0) + told(1)
    assert check(events + found(1, 0)).out_of_order == []


def test_calls_of_which_only_their_message_counts() -> None:
    """Trials that look at results by themselves use the same sets."""
    noted = [each for number in range(3) for each in accepted(f"m{number}", 0, number)]
    sets = check([*noted, *found(0, 2, 2)])
    assert (sets.lost, sets.duplicated, sets.out_of_order) == ({"m1"}, 1, [])


def test_waits() -> None:
    wait = {"timeout": 10.0, "status": "unknown"}
    events = attempted(0, lane=None) + attempted(1, lane=None)
    events += [event("wait", 0, took=24.0, **wait), event("wait", 1, took=26.0, **wait)]
    sets = check(events)
    assert (sets.waits, sets.late_waits) == ([24.0, 26.0], {"m1"})
    # Their deadline is short, and their caller was told.
    assert sets.unknown == set()
    assert sets.counts()["longest_wait"] == 26.0


def test_a_receipt_that_is_not_in_the_topic_is_a_loss() -> None:
    wait = event("wait", 0, took=1.0, timeout=10.0, status="stored")
    assert check([*attempted(0, lane=None), wait]).lost == {"m0"}


def test_a_deadline_counts_from_the_call_that_was_recorded() -> None:
    late_call = [*attempted(0), event("accepted", 0, at=150.0)]
    assert check(late_call + told(0, at=150 + 60 + 14) + found(0)).late == set()
    assert check(late_call + told(0, at=150 + 60 + 16) + found(0)).late == {"m0"}


def test_the_ledger_is_read_up_to_a_torn_line(tmp_path: Path) -> None:
    with Ledger(tmp_path, "one") as one, Ledger(tmp_path, "two") as two:
        one.note("attempt", id="m0")
        two.note("accepted", id="m0", at=3.0)
    with (tmp_path / "two.jsonl").open("a") as file:
        file.write('{"event": "att')
    events = list(read_ledger(tmp_path))
    assert [(each["event"], each["id"]) for each in events] == [
        *(("attempt", "m0"), ("accepted", "m0"))
    ]
    assert events[1]["at"] == 3.0
