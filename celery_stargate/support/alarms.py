"""Many bounds of one event loop, by one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Alarms"]

_What = TypeVar("_What")


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
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, what: _What, seconds: float) -> None:
        """Tell it in so many seconds from now; what waits already gets a new time."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        self._waiting[what] = when
        if self._timer is None or when < self._timer.when():
            self._set(loop, when)

    def end(self, what: _What) -> None:
        """Do not tell it any more; one that was told, or does not exist, changes nothing."""
        self._waiting.pop(what, None)
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(when, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        timer, self._timer = self._timer, None
        # What the loop calls at its timer's time is due, also where the clock is a little behind.
        now = loop.time() if timer is None else max(loop.time(), timer.when())
        due = [what for what, when in self._waiting.items() if when <= now]
        for what in due:
            del self._waiting[what]
        if self._waiting:
            self._set(loop, min(self._waiting.values()))
        for what in due:
            # One that raises hits no other.
            loop.call_soon(self._call, what)
