"""One call for all threads that ask at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from celery_stargate.support.bound import call_bound, time_left

__all__ = ["SharedCall"]

_Result = TypeVar("_Result")


class _Running(Generic[_Result]):
    """A call that a thread makes. Without a result and an error the others get nothing of it.

    A ``Future`` has a lock, which stays locked if a signal handler raises at the wrong moment.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.found: list[_Result] = []
        self.error: BaseException | None = None
        self.ended = False
        #: Holds something when it has ended: who waits takes it, and puts it back for the next.
        self.told: SimpleQueue[None] = SimpleQueue()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended.

        Raises:
            TimeoutError: it has not ended in time.
        """
        try:
            with suppress(Empty):
                self.told.get(timeout=seconds)
            if not self.ended:
                raise TimeoutError
        finally:
            if self.ended:
                self.told.put(None)


class SharedCall(Generic[_Result]):
    """Runs a call that does I/O for one of the threads that ask, and gives the others its result.

    No lock is held meanwhile, and nobody waits longer than the bound around its own call
    (:mod:`celery_stargate.support.bound`).

    Arguments:
        call: to run. It ends within the bound of the thread that runs it.
        errors: what the call itself raises, for all that wait. Anything else interrupted the thread
            that ran it, as what a signal handler raises does: then another one runs the call.
    """

    def __init__(
        self, call: Callable[[], _Result], errors: tuple[type[BaseException], ...]
    ) -> None:
        self._call = call
        self._errors = errors
        self._lock = threading.RLock()
        self._running: _Running[_Result] | None = None

    def result(self) -> _Result:
        """Return the result of the call that runs, or of a new one.

        Raises:
            TimeoutError: the call of another thread did not end within the bound.
            Whatever the call raises. If it ran out of another thread's time, it is run again.
        """
        mine: _Running[_Result] = _Running()
        with call_bound():
            try:
                while (running := self._begin(mine)) is not mine:
                    if running.thread == mine.thread:
                        # A signal's handler, which interrupts the call, cannot wait for it.
                        return self._call()
                    running.wait(time_left())
                    if running.found:
                        return running.found[0]
                    if running.error is not None:
                        raise running.error
                return self._run(mine)
            finally:
                # Neither can be interrupted: a method that does both could.
                mine.ended = True
                mine.told.put(None)
                with self._lock:
                    if self._running is mine:
                        self._running = None

    def _begin(self, mine: _Running[_Result]) -> _Running[_Result]:
        """Return the call that runs, or else begin this one."""
        with self._lock:
            running = self._running
            if running is None or running.ended:
                running = self._running = mine
            return running

    def _run(self, mine: _Running[_Result]) -> _Result:
        end = time.monotonic() + time_left()
        try:
            found = self._call()
        except self._errors as error:
            # Whoever has more time than this thread tries again.
            if time.monotonic() < end - 1.0:
                mine.error = error
            raise
        mine.found.append(found)
        return found
