"""Many bounds of one event loop, by one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

__all__ = ["Alarms"]


class Alarms:
    """Calls functions at their times, unless what they belong to ends before.

    Nearly all end before, and a timer of the event loop for each of them would be made in vain. So
    all share one, which is set to the earliest.

    Example:
        >>> async def wait():
        ...     alarms, rung = Alarms(), asyncio.Event()
        ...     alarms.begin("a call", 0.01, rung.set)
        ...     alarms.begin("another", 60.0, rung.clear)
        ...     alarms.end("another")
        ...     await rung.wait()
        >>> asyncio.run(wait())
    """

    def __init__(self) -> None:
        #: Each with its time, by the clock of the event loop, and what to call.
        self._waiting: dict[Hashable, tuple[float, Callable[[], object]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, what: Hashable, seconds: float, call: Callable[[], object]) -> None:
        """Call a function after so many seconds.

        Arguments:
            what: names it; one that waits under the same name is replaced.
            seconds: until then.
            call: it is called in the running event loop.
        """
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        self._waiting[what] = when, call
        if self._timer is None or when < self._timer.when():
            self._set(loop, when)

    def end(self, what: Hashable) -> None:
        """Do not call it any more; one that was called, or does not exist, changes nothing."""
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
        due = [what for what, (when, _) in self._waiting.items() if when <= now]
        calls = [self._waiting.pop(what)[1] for what in due]
        if self._waiting:
            self._set(loop, min(when for when, _ in self._waiting.values()))
        for call in calls:
            # One that raises hits no other.
            loop.call_soon(call)
