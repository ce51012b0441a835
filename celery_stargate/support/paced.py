"""Work that may wait: done in a thread of its own, for a small part of the time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
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
#: Seconds without a new job, or a hint of one, after which the process counts as idle, and the part
#: of the time that the work may take then.
_QUIET = 0.2
_IDLE_SHARE = 0.5
#: Seconds for which jobs are put off while the process is busy.
_PATIENCE = 2.0


class Paced(Generic[_Job]):
    """Does jobs in their order, and rests between them, so that other threads are hardly slowed.

    While new jobs come, it puts all off for up to two seconds: a burst of messages is over by then.
    A forked child begins with none.

    Arguments:
        work: does one job; what it raises is logged.
        name: of the work, for the log and the thread.
        share: the part of the time that it may take while new jobs come; else it is half of it.
        limit: how many jobs may wait. With half of them it puts nothing off.
    """

    def __init__(
        self, work: Callable[[_Job], None], name: str, *, share: float = 0.05, limit: int = 20_000
    ) -> None:
        self._work = work
        self._name = name
        self._share = share
        self._limit = limit
        #: When the last job came, by the monotonic clock.
        self._added = 0.0
        self._log_now = Seldom()
        self._waiting: PerProcess[deque[_Job]] = PerProcess(deque)
        self._given = PerProcess(threading.Event)
        #: Held while jobs are done.
        self._doing = PerProcess(threading.RLock)
        self._thread = PerProcess(self._start)

    def add(self, *jobs: _Job) -> None:
        """Let jobs be done soon; those for which there is no room are dropped, which is logged."""
        room = max(0, self._limit - len(self._waiting.get()))
        if len(jobs) > room and self._log_now():
            logger.warning(
                "%s: more than %d wait, and new ones are dropped", self._name, self._limit
            )
        self._take(jobs[:room])

    def offer(self, job: _Job) -> bool:
        """Let a job be done soon; return False where there is no room, and the caller does it."""
        there_is = len(self._waiting.get()) < self._limit
        self._take((job,) if there_is else ())
        return there_is

    def expect(self) -> None:
        """Count the process as busy: a job will come soon."""
        self._added = time.monotonic()

    def flush(self) -> None:
        """Do here what waits, and return when the thread has ended what it was doing, too."""
        self._do(self._limit)

    def _take(self, jobs: Sequence[_Job]) -> None:
        self._waiting.get().extend(jobs)
        self._added = time.monotonic()
        self._thread.get()
        self._given.get().set()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=f"stargate-{self._name}", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        waiting, given = self._waiting.get(), self._given.get()
        while True:
            given.wait()
            given.clear()
            until = time.monotonic() + _PATIENCE
            while waiting:
                now = time.monotonic()
                busy = now - self._added < _QUIET
                if busy and now < until and len(waiting) < self._limit / 2:
                    time.sleep(_QUIET)
                    continue
                if not busy:
                    # What is left may wait while the next burst is under way, too.
                    until = now + _PATIENCE
                began = time.thread_time()
                self._do(_BATCH)
                share = self._share if busy else max(self._share, _IDLE_SHARE)
                time.sleep(min((time.thread_time() - began) / share, _LONGEST))

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
