"""Do the effects of settled contexts, in batches, in one thread for each stage."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from celery_stargate.delivery.in_flight import InFlight
from celery_stargate.delivery.owned import OwnedLane
from celery_stargate.effects.jobs import Job, Rest, Stage, finished_and_given_up
from celery_stargate.lanes.record import Settled
from celery_stargate.model.entry import label_of
from celery_stargate.support.cancel import cancel_all
from celery_stargate.support.log import logger_of

__all__ = ["EffectsQueue"]

logger = logger_of(__name__)

#: How many contexts one round in a stage's thread has at most.
_BATCH = 100
#: Seconds between two looks at a thread that is busy: it may hang.
_LOOK_EVERY = 1.0
#: Seconds past its bound for which an interrupted context may still come back from Redis.
_KEPT = 600.0
#: Of how many interrupted contexts the rest is known; others begin anew, with a new bound.
_KEPT_COUNT = 100_000


class EffectsQueue:
    """The settled contexts of one lane whose effects are to be done.

    A context that a passing error interrupts leaves the queue and stays due in Redis, which brings
    it back; it goes on where it was interrupted.

    Arguments:
        lane: whose they are.
        in_flight: is told to wait for their receipts no more.
    """

    def __init__(self, lane: OwnedLane, in_flight: InFlight) -> None:
        self._lane = lane
        self._in_flight = in_flight
        self._waiting: dict[Stage, deque[Job]] = {stage: deque() for stage in Stage}
        self._given = asyncio.Event()
        self._busy: dict[Stage, asyncio.Task[None]] = {}
        #: Contexts that are queued or being done, each with its first number.
        self._known: set[tuple[str, int]] = set()
        #: What is left to do for contexts that were interrupted, the oldest first.
        self._interrupted: dict[tuple[str, int], Rest] = {}

        #: Contexts that are finished, of which somebody is to be told.
        self._untold: deque[Settled] = deque()
        self._being_told = 0

    def __len__(self) -> int:
        return len(self._known) + len(self._untold) + self._being_told

    @property
    def keeps_up(self) -> bool:
        """Whether more may be sent: what waits for slow effects is to stay in Redis."""
        return len(self) <= 2 * self._lane.options.max_in_flight

    def add(self, settled: Iterable[Settled]) -> None:
        """Queue contexts; one that is here already is left out."""
        for each in settled:
            context, first = each.identity
            if each.identity not in self._known:
                self._known.add(each.identity)
                self._queue(self._job(each))
            count = len(each.outcomes)
            places = range(count) if count > 1 else (-1,)
            self._in_flight.forget(
                (label_of(context, place), first + max(place, 0)) for place in places
            )

    def tell(self, finished: Iterable[Settled]) -> None:
        """Queue contexts that the settling step finished: their successes are to be told."""
        self._untold += finished
        self._given.set()

    async def run(self) -> None:
        """Do the effects of what is queued, until cancelled.

        Raises:
            Whatever redis-py raises, except that Redis is not available.
        """
        try:
            while True:
                await self._given.wait()
                self._given.clear()
                for stage, task in list(self._busy.items()):
                    if task.done():
                        del self._busy[stage]
                        task.result()
                for stage, jobs in self._waiting.items():
                    if jobs and stage not in self._busy:
                        self._busy[stage] = task = asyncio.ensure_future(self._work(stage))
                        task.add_done_callback(lambda _: self._given.set())
                if self._untold and Stage.TOLD not in self._busy:
                    self._busy[Stage.TOLD] = task = asyncio.ensure_future(self._tell())
                    task.add_done_callback(lambda _: self._given.set())
        finally:
            await cancel_all(list(self._busy.values()))
            if self._untold:
                # Another owner would not tell them: they are finished.
                self._tell_now([*self._untold])

    async def hand_in(self, settled: Sequence[Settled]) -> None:
        """Do the effects of some contexts beside the queue, and finish those that are done.

        Raises:
            Whatever redis-py raises.
        """
        own = [self._job(each) for each in settled]
        jobs = own
        while jobs:
            for stage in Stage:
                now = [job for job in jobs if job.next is stage]
                if now:
                    jobs = [*jobs, *await self._perform(stage, now)]
            jobs = [job for job in jobs if job.next is not None]
        store = self._lane.store
        done, given_up = finished_and_given_up(job for job in own if job.done)
        if done:
            await store.finish(done)
        if given_up:
            await store.give_up(given_up)

    async def _tell(self) -> None:
        """Tell of finished contexts in the thread of that stage, some at a time."""
        while self._untold:
            batch = [self._untold.popleft() for _ in range(min(_BATCH, len(self._untold)))]
            self._being_told = len(batch)
            # Its place in the thread's queue outlives this owner.
            await asyncio.shield(self._tell_now(batch))
            self._being_told = 0
            self._lane.changes.notify()

    def _tell_now(self, finished: Sequence[Settled]) -> asyncio.Future[None]:
        shared = self._lane.shared
        return asyncio.get_running_loop().run_in_executor(
            shared.threads.of(Stage.TOLD), shared.services.effects.tell, finished
        )

    def _job(self, settled: Settled) -> Job:
        """Return the job of a context; one that was interrupted goes on."""
        rest = self._interrupted.get(settled.identity)
        return Job(settled, rest=rest or Rest(self._lane.shared.monotonic()))

    def _queue(self, job: Job) -> None:
        # A thread that hung may have done the rest since; then it only has to be finished.
        self._waiting[job.next or Stage.WAITERS].append(job)
        self._given.set()

    async def _work(self, stage: Stage) -> None:
        """Do one stage of all jobs that wait for it."""
        waiting = self._waiting[stage]
        while waiting:
            batch = [waiting.popleft() for _ in range(min(_BATCH, len(waiting)))]
            batch += await self._perform(stage, batch)
            await self._finish([job for job in batch if job.done and job.lane is None])
            for job in batch:
                if job.next is not None:
                    self._queue(job)
                elif job.lane is None:
                    if not job.done:
                        await self._set_aside(job)
                    self._known.discard(job.given.identity)
            self._lane.changes.notify()

    async def _perform(self, stage: Stage, jobs: Sequence[Job]) -> list[Job]:
        """Do one stage of some jobs in its thread, or leave them if the thread hangs.

        Returns:
            Further jobs that came of it.
        """
        shared = self._lane.shared
        effects, threads = shared.services.effects, shared.threads
        hanging = effects.hangs_for(stage)
        if hanging > threads.patience(stage):
            threads.replace(stage)
            effects.abandon(stage)
        elif hanging:
            self._interrupt(stage, jobs)
            return []
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(threads.of(stage), effects.perform, stage, jobs)
        try:
            while not (await asyncio.wait([future], timeout=_LOOK_EVERY))[0]:
                if effects.hangs_for(stage):
                    future.cancel()
                    self._interrupt(stage, jobs)
                    return []
        except asyncio.CancelledError:
            future.cancel()
            raise
        return future.result()

    @staticmethod
    def _interrupt(stage: Stage, jobs: Iterable[Job]) -> None:
        for job in jobs:
            job.interrupted.add(stage)

    async def _finish(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._interrupted.pop(job.given.identity, None)
        store, retry = self._lane.store, self._lane.retry
        done, given_up = finished_and_given_up(jobs)
        if done:
            await retry.until_available(store.finish, done)
        if given_up:
            await retry.until_available(store.give_up, given_up)

    async def _set_aside(self, job: Job) -> None:
        """Keep what is left of a job that was interrupted, or give it up when its time is over."""
        now = self._lane.shared.monotonic()
        bound, since = self._lane.shared.settings.effects_timeout, job.rest.since
        if now - since > bound:
            logger.error(
                "the context is given up after %.0f s: could not %s; see stargate_effects_timeout",
                now - since,
                " or ".join(stage.value for stage in job.remaining),
                lane=self._lane.name,
                context=job.context,
            )
            job.give_up("TimeoutError", "effects")
            await self._finish([job])
            return
        if len(self._interrupted) < _KEPT_COUNT:
            self._interrupted[job.given.identity] = job.rest
        # What another process finished does not come back.
        identity, oldest = next(iter(self._interrupted.items()))
        if now - oldest.since > bound + _KEPT:
            del self._interrupted[identity]
