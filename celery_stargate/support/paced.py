"""Work that may wait: done in a thread of its own, for a small part of the time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from celery_stargate.support.log import logger_of
from celery_stargate.support.per_process import PerProcess
from celery_stargate.support.seldom import Seldom

__all__ = ["Paced"]

logger = logger_of(__name__)

_Job = TypeVar("_Job")

#: How many jobs are done at once.
_BATCH = 10
#: Seconds of one rest at most.
_LONGEST = 1.0


class Paced(Generic[_Job]):
    """Does jobs in their order, and rests between them, so that other threads are hardly slowed.

    A forked child begins with none. If too many jobs wait, new ones are dropped, which is logged.

    Arguments:
        work: does one job; what it raises is logged.
        name: of the work, for the log and the thread.
        share: the part of the time that it may take.
        limit: how many jobs may wait.
    """

    def __init__(
        self, work: Callable[[_Job], None], name: str, *, share: float = 0.05, limit: int = 20_000
    ) -> None:
        self._work = work
        self._name = name
        self._share = share
        self._limit = limit
        self._log_now = Seldom()
        self._waiting: PerProcess[deque[_Job]] = PerProcess(deque)
        self._given = PerProcess(threading.Event)
        #: Held while jobs are done.
        self._doing = PerProcess(threading.RLock)
        self._thread = PerProcess(self._start)

    def add(self, job: _Job) -> None:
        """Let a job be done soon."""
        waiting = self._waiting.get()
        if len(waiting) >= self._limit:
            if self._log_now():
                logger.warning(
                    "%s: more than %d wait, and new ones are dropped", self._name, self._limit
                )
            return
        waiting.append(job)
        self._thread.get()
        self._given.get().set()

    def flush(self) -> None:
        """Do here what waits, and return when the thread has ended what it was doing, too."""
        self._do(self._limit)

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=f"stargate-{self._name}", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        waiting, given = self._waiting.get(), self._given.get()
        while True:
            given.wait()
            given.clear()
            while waiting:
                began = time.thread_time()
                self._do(_BATCH)
                time.sleep(min((time.thread_time() - began) / self._share, _LONGEST))

    def _do(self, count: int) -> None:
        waiting = self._waiting.get()
        with self._doing.get():
            for _ in range(count):
                if not waiting:
                    return
                try:
                    self._work(waiting.popleft())
                except Exception:
                    if self._log_now():
                        logger.exception("%s failed; it goes on with the next", self._name)
