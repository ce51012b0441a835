"""Effects for a caller's thread: waiting callers at once, the rest in bounded time."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import TimeoutError as FutureTimeout

from celery_stargate.effects.attempts import STUCK_AFTER
from celery_stargate.effects.jobs import Job, Stage, finish_jobs
from celery_stargate.effects.run import Effects
from celery_stargate.errors import StoreUnavailable
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Settled
from celery_stargate.support.bound import time_left
from celery_stargate.support.daemon import DaemonThread
from celery_stargate.support.log import logger_of
from celery_stargate.support.per_process import PerProcess

__all__ = ["EffectsApart"]

logger = logger_of(__name__)


class EffectsApart:
    """Does the effects of contexts that a caller settled, and finishes them.

    The caller's thread notifies those who wait. Results and callbacks are done in a thread of this
    process, for which the caller waits a few seconds at most: the broker may hang. What is left is
    done by the owner of the lane.

    Arguments:
        effects: does them.
        outbox: where they are finished.
    """

    def __init__(self, effects: Effects, outbox: Outbox) -> None:
        self._effects = effects
        self._outbox = outbox
        self._thread = PerProcess(lambda: DaemonThread("stargate-effects", effects.own_connections))

    def run(self, lane: Lane, settled: Iterable[Settled]) -> None:
        """Do the effects of contexts of one lane.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        jobs = [Job(each) for each in settled]
        waiters = [job for job in jobs if job.next is Stage.WAITERS]
        further = self._effects.perform(Stage.WAITERS, waiters) if waiters else []
        self._finish(lane, [job for job in waiters if job.done])
        left = [job for job in [*jobs, *further] if job.next is not None]
        if not left or any(self._effects.hangs_for(stage) for stage in Stage):
            return
        try:
            going = self._thread.get().submit(self._go_on, lane, left)
        except RuntimeError as error:
            # There are too many threads, or the interpreter ends.
            logger.warning(
                "effects of %d contexts are done later: %s", len(left), error, lane=lane.name
            )
            return
        try:
            going.result(min(STUCK_AFTER, time_left()))
        except FutureTimeout:
            logger.warning("effects of %d contexts are done later", len(left), lane=lane.name)

    def _go_on(self, lane: Lane, jobs: list[Job]) -> None:
        self._effects.go_on(jobs)
        try:
            self._finish(lane, [job for job in jobs if job.done and job.lane is None])
        except StoreUnavailable as error:
            logger.warning("%s; the effects are repeated later", error)

    def _finish(self, lane: Lane, jobs: list[Job]) -> None:
        finish_jobs(self._outbox, lane, [job for job in jobs if job.lane is None])
