"""The free connections of a pool, in place of a queue that has a lock."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from queue import Empty, Full, SimpleQueue
from typing import Any

__all__ = ["FreeList"]

#: Seconds after which a thread looks again, should nobody have woken it.
_LOOK = 0.1


class FreeList:
    """Does for redis-py's blocking pool what ``queue.LifoQueue`` does, without a lock of Python's.

    A signal handler may run while the thread that it interrupts is in a method. With a lock it
    would wait for that thread, which goes on only after it; and if it raised, the lock could stay
    locked. Each step here is one step of a list or a deque.

    Arguments:
        maxsize: how many it holds at most.
    """

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        #: As redis-py reads it of a ``LifoQueue``.
        self.queue: list[Any] = []
        #: Each thread that waits has one, and is woken by it.
        self._waiting: deque[SimpleQueue[None]] = deque()

    def put_nowait(self, item: Any) -> None:
        """Add one, and wake a thread that waits for it.

        Raises:
            Full: it holds as many as it may.
        """
        if len(self.queue) >= self.maxsize:
            raise Full
        self.queue.append(item)
        if self._waiting:
            self._wake()

    def get(self, block: bool = True, timeout: float = 0.0) -> Any:
        """Take the one that was added last.

        Arguments:
            block: wait for one.
            timeout: seconds to wait at most.

        Raises:
            Empty: there was none in time.
        """
        try:
            return self.queue.pop()
        except IndexError:
            return self._wait(timeout if block else 0.0)

    def _wait(self, seconds: float) -> Any:
        end = time.monotonic() + seconds
        waker: SimpleQueue[None] = SimpleQueue()
        self._waiting.append(waker)
        try:
            while True:
                with suppress(IndexError):
                    return self.queue.pop()
                left = end - time.monotonic()
                if left <= 0:
                    raise Empty
                with suppress(Empty):
                    waker.get(timeout=min(left, _LOOK))
                    # Another thread may be faster.
                    self._waiting.append(waker)
        finally:
            try:
                self._waiting.remove(waker)
            except ValueError:
                # It was woken, perhaps for another one than it has taken.
                if self.queue:
                    self._wake()

    def _wake(self) -> None:
        # Another thread may wake the last one meanwhile.
        with suppress(IndexError):
            self._waiting.popleft().put(None)
