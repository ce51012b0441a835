"""Many bounds of one event loop, by one timer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Alarms", "EarliestTimer"]

_What = TypeVar("_What")

#: Seconds between two rings at least: each looks at all that wait.
_LEAST = 0.01


class EarliestTimer:
    """One timer of an event loop, set to the earliest of many times.

    Arguments:
        ring: called in the event loop when that time has come, with the time that is reached;
            returns the earliest of those that are left, or None.
    """

    def __init__(self, ring: Callable[[float], float | None]) -> None:
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        #: By the clock of the event loop. The handles of uvloop do not always tell it.
        self._when = math.inf

    def by(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        """Ring at a time, if nothing rings before."""
        if when < self._when:
            self.stop()
            self._when = when
            self._handle = loop.call_at(when, self._call, loop)

    def stop(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._when = None, math.inf

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        # What the loop calls at its timer's time is due, also where the clock is a little behind.
        now = max(loop.time(), self._when)
        self._handle, self._when = None, math.inf
        left = self._ring(now)
        if left is not None:
            self.by(loop, max(left, now + _LEAST))


class Alarms(Generic[_What]):
    """Tells what has not ended by its time.

    Nearly all ends before, and a timer of the event loop for each would be made in vain. So all
    share one, which is set to the earliest.

    Arguments:
        call: called in the event loop with each whose time has come.

    Example:
        >>> async def wait():
        ...     late = asyncio.Queue()
        ...     alarms = Alarms(late.put_nowait)
        ...     alarms.begin("a call", 0.01)
        ...     alarms.begin("another", 0.005)
        ...     alarms.end("another")
        ...     return await late.get()
        >>> asyncio.run(wait())
        'a call'
    """

    def __init__(self, call: Callable[[_What], object]) -> None:
        self._call = call
        #: The time of each, by the clock of the event loop.
        self._waiting: dict[_What, float] = {}
        self._timer = EarliestTimer(self._ring)

    def begin(self, what: _What, seconds: float) -> None:
        """Call it ``seconds`` from now; one that waits already gets a new time."""
        loop = asyncio.get_running_loop()
        self._waiting[what] = when = loop.time() + seconds
        self._timer.by(loop, when)

    def end(self, what: _What) -> None:
        """Do not tell it any more; one that was told, or does not exist, changes nothing."""
        if self._waiting.pop(what, None) is not None and not self._waiting:
            self._timer.stop()

    def _ring(self, now: float) -> float | None:
        loop = asyncio.get_running_loop()
        for what in [what for what, when in self._waiting.items() if when <= now]:
            del self._waiting[what]
            # One that raises hits no other.
            loop.call_soon(self._call, what)
        return min(self._waiting.values(), default=None)
