"""Whether a process that is no worker must still own lanes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Demand"]


class Demand:
    """The reason why a caller's process owns lanes: calls, and messages that wait.

    Threads note their calls. The supervisor ends when there has been no reason for ``idle_after``
    seconds. Both use one lock, so a call never relies on an owner that is about to end.

    Arguments:
        idle_after: seconds without a reason after which the process stops owning lanes.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self, idle_after: float, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._idle_after = idle_after
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._last = monotonic()
        self._ended = False

    def note(self) -> bool:
        """Note that a call needs an owner; return whether this process still is one."""
        with self._lock:
            if not self._ended:
                self._last = self._monotonic()
            return not self._ended

    def end(self) -> None:
        """End the demand now, because other processes own the lanes."""
        with self._lock:
            self._ended = True

    def has_ended(self, *, busy: bool) -> bool:
        """Return whether this process must stop owning lanes.

        Arguments:
            busy: whether something waits in a lane, or was done there since the last question.
        """
        with self._lock:
            if busy:
                self._last = self._monotonic()
            elif self._monotonic() - self._last >= self._idle_after:
                self._ended = True
            return self._ended
