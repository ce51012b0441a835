"""One call for all threads that ask at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from celery_stargate.support.bound import call_bound, time_left

__all__ = ["SharedCall"]

_Result = TypeVar("_Result")


class SharedCall(Generic[_Result]):
    """Runs a call that does I/O for one of the threads that ask, and gives the others its result.

    No lock is held meanwhile, and nobody waits longer than the bound around its own call
    (:mod:`celery_stargate.support.bound`).

    Arguments:
        call: to run. It ends within the bound of the thread that runs it.
    """

    def __init__(self, call: Callable[[], _Result]) -> None:
        self._call = call
        self._lock = threading.RLock()
        self._running: Future[_Result] | None = None
        #: The thread that runs it.
        self._thread = 0

    def result(self) -> _Result:
        """Return the result of the call that runs, or of a new one.

        Raises:
            TimeoutError: the call of another thread did not end within the bound.
            Whatever the call raises. If it ran out of another thread's time, it is run again.
        """
        with call_bound():
            while True:
                with self._lock:
                    running = self._running
                    if running is None:
                        mine = self._running = Future()
                        self._thread = threading.get_ident()
                if running is None:
                    return self._run(mine)
                if self._thread == threading.get_ident():
                    # A signal's handler, which interrupts the call, cannot wait for it.
                    return self._call()
                left = time_left()
                try:
                    return running.result(left)
                except Exception:
                    if not getattr(running, "ran_out", False) or time_left() <= 0:
                        raise

    def _run(self, mine: Future[_Result]) -> _Result:
        end = time.monotonic() + time_left()
        try:
            found = self._call()
        except BaseException as error:
            # Whoever has more time than this thread tries again.
            mine.ran_out = time.monotonic() >= end - 1.0  # type: ignore[attr-defined]
            self._end()
            mine.set_exception(error)
            raise
        self._end()
        mine.set_result(found)
        return found

    def _end(self) -> None:
        with self._lock:
            self._running = None
