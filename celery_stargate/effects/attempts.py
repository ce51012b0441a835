"""Attempts at effects: one bad context costs the others nothing, and what is away is left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from celery.exceptions import TaskPredicate

from celery_stargate.effects.breaker import Breaker
from celery_stargate.effects.failures import Dependency, Kind, blamed
from celery_stargate.effects.jobs import Job, Stage
from celery_stargate.support.exits import as_error
from celery_stargate.support.log import logger_of

__all__ = ["KEPT", "STUCK_AFTER", "Attempts"]

logger = logger_of(__name__)

#: What each stage needs.
_NEEDS: dict[Stage, tuple[Dependency, ...]] = {
    Stage.WAITERS: (Dependency.LANES,),
    Stage.CALLBACKS: (Dependency.BROKER,),
    Stage.CANVAS: (Dependency.BACKEND, Dependency.BROKER),
    Stage.RESULTS: (Dependency.BACKEND,),
    Stage.TOLD: (),
}
#: What an effect returns that asked no server, because it kept what is done for many jobs together.
#: Whoever does that finishes the stage of these jobs: they are not done while it fails, or hangs.
KEPT = object()
#: Seconds that one effect may take before its stage counts as stuck.
STUCK_AFTER = 5.0
#: Seconds between two log records about a stage that hangs.
_LOG_EVERY = 300.0


class Attempts:
    """Attempts the stages of jobs, in any thread, and notes in each job what became of it.

    Arguments:
        kind: tells whether an error passes.
        monotonic: the clock, in seconds, by which a stage is stuck and what is away is tried again.
    """

    def __init__(
        self, kind: Callable[[BaseException], Kind], monotonic: Callable[[], float]
    ) -> None:
        self._kind = kind
        self._monotonic = monotonic
        self._breakers = {each: Breaker(each.value, monotonic) for each in Dependency}
        #: When the effect began that a thread does now, by its stage and the thread.
        self._began: dict[tuple[Stage, int], float] = {}
        self._log_at: dict[Stage, float] = {}

    def each(self, stage: Stage, jobs: Iterable[Job], effect: Callable[[Job], object]) -> None:
        """Do one stage of jobs one by one; each fails for itself.

        Arguments:
            effect: does it, or returns ``KEPT``.
        """
        breakers = [self._breakers[each] for each in _NEEDS[stage]]
        kept = False
        # One that fails each time must not be the only one that is tried.
        for job in sorted(jobs, key=lambda each: each.rest.tries):
            # What is kept for many jobs is one try.
            allowed = kept or (not self.is_open(stage) and all(each.allows() for each in breakers))
            kept = False
            if not allowed:
                job.interrupted.add(stage)
                continue
            self.begin(stage)
            try:
                kept = effect(job) is KEPT
            except BaseException as error:  # noqa: BLE001  # the table decides
                self.failed(stage, job, as_error(error))
            else:
                if not kept:
                    job.finish(stage)
                    self.succeeded(stage)

    def prepared(
        self,
        stage: Stage,
        jobs: Iterable[Job],
        dependency: Dependency,
        prepare: Callable[[], object],
    ) -> bool:
        """Return whether what a stage needs is prepared in this thread.

        If not, its dependency counts as away, whatever the error is, and the jobs are interrupted.

        Arguments:
            dependency: what is away if ``prepare`` raises.
            prepare: called at most once, and not while the dependency is known to be away.
        """
        if not self._breakers[dependency].is_open:
            self.begin(stage)
            try:
                prepare()
            except Exception as error:  # noqa: BLE001  # it worked when the process started
                self._breakers[dependency].failed(error)
            else:
                return True
        for job in jobs:
            job.interrupted.add(stage)
        return False

    def failed(self, stage: Stage, job: Job, error: Exception) -> None:
        """Note what a stage of a job raised."""
        if self._kind(error) is Kind.PASSING:
            job.interrupted.add(stage)
            job.rest.tries += 1
            away = blamed(error, publishing=stage is Stage.CALLBACKS)
            if away is not None:
                self._breakers[away].failed(error)
            return
        logger.error(
            "cannot %s; this is not repeated", stage.value, exc_info=error, context=job.context
        )
        job.finish(stage)
        # A hook's Reject, Ignore or Retry comes when the result is stored already.
        if stage is Stage.WAITERS or isinstance(error, TaskPredicate):
            return
        job.give_up(type(error).__name__, stage.name.lower())
        if job.fail(error) and stage is not Stage.CALLBACKS:
            # Not even the failure is stored yet.
            job.remaining.insert(0, stage)

    def succeeded(self, stage: Stage) -> None:
        """Note that what a stage needs is there."""
        for each in _NEEDS[stage]:
            self.answered(each)

    def answered(self, dependency: Dependency) -> None:
        """Note that one dependency is there."""
        self._breakers[dependency].succeeded()

    def is_open(self, stage: Stage) -> bool:
        """Whether something that a stage needs is away, and it is not time yet to try it."""
        return any(self._breakers[each].is_open for each in _NEEDS[stage])

    def begin(self, stage: Stage) -> None:
        """Note that this thread begins an effect."""
        self._began[stage, threading.get_ident()] = self._monotonic()

    def end(self, stage: Stage) -> None:
        """Note that this thread has done a stage."""
        self._began.pop((stage, threading.get_ident()), None)

    def hangs_for(self, stage: Stage) -> float:
        """Return for how many seconds a stage has hung; 0.0 for an ordinary delay."""
        now = self._monotonic()
        began = [at for (of, _), at in list(self._began.items()) if of is stage]
        longest = now - min(began, default=now)
        if longest <= STUCK_AFTER:
            return 0.0
        if now >= self._log_at.get(stage, now):
            self._log_at[stage] = now + _LOG_EVERY
            logger.warning(
                "cannot %s: no answer for %.0f s; what needs it is repeated later",
                *(stage.value, longest),
            )
        return longest

    def abandon(self, stage: Stage) -> None:
        """Forget the threads that hang in a stage."""
        for key in list(self._began):
            if key[0] is stage:
                self._began.pop(key, None)
