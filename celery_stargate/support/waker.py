"""What wakes a thread, also from a signal handler."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue

__all__ = ["Waker"]


class Waker:
    """Wakes the one thread that waits, now or when it waits next.

    A :class:`threading.Event` has a lock: a signal handler that sets it waits for ever, if it
    interrupts the thread while that holds the lock.

    Example:
        >>> waker = Waker()
        >>> waker.set()
        >>> waker.wait(0.0), waker.wait(0.0)
        (True, False)
    """

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: SimpleQueue[None] = SimpleQueue()

    def is_set(self) -> bool:
        """Return whether the next wait ends at once."""
        return not self._told.empty()

    def set(self) -> None:
        """Wake the thread."""
        if self._told.empty():
            self._told.put(None)

    def clear(self) -> None:
        """Let the next wait wait."""
        with suppress(Empty):
            while not self._told.empty():
                self._told.get_nowait()

    def wait(self, timeout: float) -> bool:
        """Wait until it is set, and clear it; return whether it was set.

        Arguments:
            timeout: seconds to wait at most.
        """
        try:
            self._told.get(timeout=timeout)
        except Empty:
            return False
        return True
