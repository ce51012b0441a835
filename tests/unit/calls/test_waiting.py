"""The one wait: what is decided, and that threads and event loops carry it out alike."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate.calls.loop_calls import LoopCalls
from celery_stargate.calls.waiting import Patience, Schedule, Step, Waiting

CALLER = Patience(look_every=4.0, settle_every=0.5, give_up_after=2.0)


def walk(patience: Patience, start: float, end: float, deadline: float = 10.0) -> list[Any]:
    """Return the steps of one who always waits as long as told, with their times."""
    schedule, now, steps = Schedule(deadline, patience), start, []
    while now < end:
        step, pause = schedule.next(now)
        steps.append((now, step))
        if step is Step.GIVE_UP:
            break
        now += pause
    return steps


def test_a_caller() -> None:
    """Waits first, looks for an owner, settles past the deadline, and gives up in the end."""
    assert walk(CALLER, 0.0, 100.0) == [
        (0.0, Step.WAIT),
        (4.0, Step.LOOK),
        (8.0, Step.LOOK),
        (10.0, Step.SETTLE),
        (10.5, Step.SETTLE),
        (11.0, Step.SETTLE),
        (11.5, Step.SETTLE),
        (12.0, Step.GIVE_UP),
    ]


def test_an_owner_comes_first() -> None:
    """Its grace begins at the deadline, or where the wait begins after that."""
    result = Patience(owner_grace=1.0, settle_every=1.0)
    assert walk(result, 0.0, 13.0) == [
        (0.0, Step.WAIT),
        (11.0, Step.SETTLE),
        (12.0, Step.SETTLE),
    ]
    assert walk(result, 20.0, 22.0) == [(20.0, Step.WAIT), (21.0, Step.SETTLE)]


def test_the_outcome_may_be_there_already() -> None:
    """Before anything is settled it is looked for, however late it is."""
    schedule = Schedule(10.0, CALLER)
    assert schedule.next(50.0) == (Step.WAIT, 0.0)
    assert schedule.next(50.0) == (Step.SETTLE, 0.5)


def test_who_comes_early_waits_for_the_rest() -> None:
    """So a wait that ends early, or one that others share, does nothing twice."""
    schedule = Schedule(10.0, CALLER)
    schedule.next(0.0)
    assert schedule.next(3.0) == (Step.WAIT, 1.0)
    assert schedule.next(4.0) == (Step.LOOK, 4.0)
    assert schedule.next(4.5) == (Step.WAIT, 3.5)


def test_progress_is_a_reason_to_wait_on() -> None:
    """It gives up that much later."""
    schedule = Schedule(10.0, CALLER)
    schedule.next(10.0, progress=3)
    assert schedule.next(10.0, progress=3)[0] is Step.SETTLE
    assert schedule.next(11.5, progress=2)[0] is Step.SETTLE
    assert schedule.next(12.5, progress=2)[0] is Step.SETTLE
    assert schedule.next(13.5, progress=2)[0] is Step.GIVE_UP


seconds = st.floats(0.01, 100.0)


@given(
    patience=st.builds(
        Patience,
        look_every=st.one_of(seconds, st.just(math.inf)),
        owner_grace=st.one_of(seconds, st.just(0.0)),
        settle_every=st.floats(1.0, 100.0),
        give_up_after=seconds,
    ),
    deadline=seconds,
    start=st.floats(0.0, 200.0),
)
def test_every_wait_ends(patience: Patience, deadline: float, start: float) -> None:
    """Within the deadline, the graces, and one pause; it never settles before the deadline."""
    schedule, now = Schedule(deadline, patience), start
    for _ in range(100_000):
        step, pause = schedule.next(now)
        if step is Step.SETTLE:
            assert now >= deadline + patience.owner_grace
        if step is Step.GIVE_UP:
            break
        now += pause
    end = max(start, deadline) + patience.owner_grace + patience.give_up_after
    assert now <= end + patience.settle_every + 1e-6


class Clock:
    """A clock that a wait moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def noted(clock: Clock) -> tuple[Waiting, list[Any]]:
    """Return a wait by a clock, and what it does."""
    did: list[Any] = []
    waiting = Waiting(
        10.0,
        CALLER,
        lambda: did.append(("settle", clock.now)),
        lambda: did.append(("look", clock.now)),
        monotonic=clock,
    )
    return waiting, did


DID = [
    *(("look", moment) for moment in (4.0, 8.0)),
    *(("settle", moment) for moment in (10.0, 10.5, 11.0, 11.5)),
]


def in_a_thread(clock: Clock, done: Callable[[], bool]) -> tuple[bool, list[Any]]:
    """Wait without an event loop; whether the outcome came, and what was done."""
    waiting, did = noted(clock)

    def pass_time(pause: float) -> bool:
        clock.now += pause
        return done()

    return waiting.until(pass_time), did


def in_a_loop(clock: Clock, done: Callable[[], bool]) -> tuple[bool, list[Any]]:
    """Wait in an event loop whose waits take the clock's time."""
    did: list[Any] = []

    async def pass_time(ticket: Any, pause: float) -> bool:
        clock.now += pause
        return done()

    runtime: Any = SimpleNamespace(
        outbox=SimpleNamespace(in_loop=lambda: None),
        is_owned=lambda: False,
        settle_overdue=lambda lanes: did.append(("settle", clock.now)),
        look_for_owner=lambda: did.append(("look", clock.now)),
    )
    ticket: Any = SimpleNamespace(missing=1, inbox=SimpleNamespace(wait=pass_time))

    async def main() -> bool:
        calls = LoopCalls(runtime, lambda: None, monotonic=clock)
        return await calls.wait(ticket, Schedule(10.0, CALLER), [])

    return asyncio.run(main()), did


@pytest.mark.parametrize("way", [in_a_thread, in_a_loop])
def test_both_ways_do_the_same(way: Callable[..., tuple[bool, list[Any]]]) -> None:
    """Until they give up, or the outcome is there."""
    assert way(Clock(), lambda: False) == (False, DID)
    clock = Clock()
    assert way(clock, lambda: clock.now >= 8.0) == (True, DID[:1])
