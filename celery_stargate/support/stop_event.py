"""The end of a process, as a signal handler tells it."""

from __future__ import annotations

from queue import Empty, SimpleQueue

__all__ = ["StopEvent"]


class StopEvent:
    """Tells threads to stop; a signal handler may set it.

    A :class:`threading.Event` must not be set by one: Python runs the handler in the main thread,
    between any two of its steps. If that thread is in ``wait`` or ``set`` just then, it holds the
    event's lock, and the handler would wait for it forever. ``SimpleQueue.put`` is `reentrant
    <https://docs.python.org/3/library/queue.html#queue.SimpleQueue.put>`_.

    Example:
        >>> stop = StopEvent()
        >>> stop.wait(0.0)
        False
        >>> stop.set()
        >>> stop.wait(), stop.is_set()
        (True, True)
    """

    def __init__(self) -> None:
        self._is_set = False
        #: Holds something when it is set: who waits takes it, and puts it back for the next.
        self._told: SimpleQueue[None] = SimpleQueue()

    def is_set(self) -> bool:
        """Return whether it was set."""
        return self._is_set

    def set(self) -> None:
        """Let all that wait go on, now and later."""
        self._is_set = True
        self._told.put(None)

    def wait(self, timeout: float | None = None) -> bool:
        """Return when it is set, or after the time; and whether it is set.

        Arguments:
            timeout: seconds; None waits until it is set.
        """
        if not self._is_set:
            try:
                self._told.get(timeout=timeout)
            except Empty:
                return self._is_set
            self._told.put(None)
        return True
