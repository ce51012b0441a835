"""Wait for an outcome: one decision, used by every caller that waits.

A caller waits until its deadline. Meanwhile it checks now and then that some process owns lanes.
Past the deadline it settles overdue messages itself, because no owner may be alive.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

__all__ = ["Patience", "Schedule", "Step", "Waiting"]


class Step(Enum):
    """What a waiter does next."""

    WAIT = "wait"  #: wait for the outcome
    LOOK = "look"  #: check that some process owns lanes, then wait
    SETTLE = "settle"  #: settle what is overdue, then wait
    GIVE_UP = "give up"  #: stop: nobody can tell the outcome


@dataclass(frozen=True, slots=True)
class Patience:
    """How one kind of caller waits. All durations are seconds."""

    #: The pause between two checks for an owner; infinite: never check.
    look_every: float = math.inf
    #: How long an owner has, past the deadline, before the waiter settles.
    owner_grace: float = 0.0
    #: The pause between two attempts to settle.
    settle_every: float = 0.05
    #: How long the waiter settles without progress before it gives up; infinite: it never does.
    give_up_after: float = math.inf


class Schedule:
    """Decides what a waiter does next. It reads no clock and does no I/O.

    Arguments:
        deadline: of the call, by the clock that gives :meth:`next` its ``now``.
        patience: how the caller waits.
    """

    __slots__ = ("_end", "_overdue", "_patience", "_progress", "_until")

    def __init__(self, deadline: float, patience: Patience) -> None:
        self._overdue = deadline + patience.owner_grace
        self._patience = patience
        self._until: float | None = None
        self._end: float | None = None
        self._progress = 0

    def next(self, now: float, progress: int = 0) -> tuple[Step, float]:
        """Return the next step, and for how many seconds to wait for the outcome after it.

        The first step is always to wait: the outcome may be there already. A call that comes
        before the pause is over is told to wait for the rest of it.

        Arguments:
            now: the time.
            progress: any number; a change of it means that outcomes still arrive.
        """
        patience = self._patience
        if self._until is None:
            last = max(self._overdue, now + patience.owner_grace)
            self._until = min(now + patience.look_every, last)
            return Step.WAIT, self._until - now
        if now < self._until:
            return Step.WAIT, self._until - now
        if now < self._overdue:
            self._until = min(now + patience.look_every, self._overdue)
            return Step.LOOK, self._until - now
        if self._end is None or progress != self._progress:
            self._end, self._progress = now + patience.give_up_after, progress
        if now >= self._end:
            return Step.GIVE_UP, 0.0
        self._until = now + patience.settle_every
        return Step.SETTLE, patience.settle_every


class Waiting:
    """Carries out the steps of a :class:`Schedule` in a thread.

    In an event loop :meth:`LoopCalls.wait <celery_stargate.calls.loop_calls.LoopCalls.wait>` does.

    Arguments:
        deadline: of the call, by ``monotonic``.
        patience: how the caller waits.
        settle: settles what is overdue of the call.
        look: checks that some process owns lanes.
        progress: any number that changes while outcomes still arrive.
        monotonic: the clock.
    """

    def __init__(
        self,
        deadline: float,
        patience: Patience,
        settle: Callable[[], None],
        look: Callable[[], None] = lambda: None,
        *,
        progress: Callable[[], int] = lambda: 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedule = Schedule(deadline, patience)
        self._settle = settle
        self._look = look
        self._progress = progress
        self._monotonic = monotonic

    def check(self) -> float | None:
        """Do what is due now.

        Returns:
            How many seconds to wait for the outcome before the next check; None to give up.
        """
        step, pause = self._schedule.next(self._monotonic(), self._progress())
        if step is Step.SETTLE:
            self._settle()
        elif step is Step.LOOK:
            self._look()
        return None if step is Step.GIVE_UP else pause

    def until(self, done: Callable[[float], bool]) -> bool:
        """Wait in this thread.

        Arguments:
            done: waits for the outcome, at most as many seconds as its argument says; returns
                whether it is there.

        Returns:
            Whether the outcome is there; False if the wait was given up.
        """
        while (pause := self.check()) is not None:
            if done(pause):
                return True
        return False
