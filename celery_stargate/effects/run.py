"""Effects: what follows an outcome. Callers are notified, callbacks published, results stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import msgspec
from celery import states

from celery_stargate.effects.attempts import KEPT, Attempts
from celery_stargate.effects.callback_stage import CallbackStage
from celery_stargate.effects.callbacks import callback_id, following, trigger
from celery_stargate.effects.database import own_connections
from celery_stargate.effects.failures import Dependency, Kind, kind_of
from celery_stargate.effects.jobs import Job, Stage, finish_jobs
from celery_stargate.effects.of_thread import OfThread
from celery_stargate.effects.results.at_once import AtOnce
from celery_stargate.effects.results.chords import ChordPart
from celery_stargate.effects.successes import Successes
from celery_stargate.effects.together import Together, may_publish_together, together
from celery_stargate.effects.tracer import acting_as
from celery_stargate.effects.unstarted import UntilStarted
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import Decision, Remaining, ResultRow
from celery_stargate.model.outcome import Failure, Outcome
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.log import logger_of

if TYPE_CHECKING:
    from celery import Celery

    from celery_stargate.lanes.outbox import Outbox

__all__ = ["Effects", "callback_id"]

logger = logger_of(__name__)

#: The stages in which Celery uses the app's result backend. It does so to publish a task, too.
_WITH_BACKEND = frozenset({Stage.CALLBACKS, Stage.CANVAS, Stage.RESULTS})


# It has more methods than a class should: one for each stage, and for each part of it.
class Effects:
    """Does the effects of settled contexts, in the calling thread.

    Arguments:
        app: the Celery app whose backend and broker get them.
        lanes: where waiting processes are notified; None if only this call waits.
        hostname: the worker's name, for results and events; None outside a worker.
        on_done: called with each context whose effects are done.
        done_matters: whether ``on_done`` has anything to do now; by default it always has.
        beside_lanes: whether the app's results are stored in the Redis that holds the lanes, or
            nowhere.
        monotonic: the clock, in seconds, by which a stage is stuck and what is away is tried again.
    """

    def __init__(
        self,
        app: Celery,
        lanes: Outbox | None,
        hostname: str | None = None,
        on_done: Callable[[Settled], None] | None = None,
        *,
        done_matters: Callable[[], bool] = lambda: True,
        beside_lanes: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._lanes = lanes
        self._hostname = hostname
        self._on_done = on_done
        self._done_matters = done_matters
        self._beside_lanes = beside_lanes
        self._successes = Successes(app)
        self._local = threading.local()
        self._attempts = Attempts(self._kind, monotonic)
        self._callbacks = CallbackStage(app, self._attempts, in_worker=hostname is not None)

    def keep_until_started(self, until_started: UntilStarted) -> None:
        """Keep each callback that is published until its task has started."""
        self._callbacks.until_started = until_started

    def run(self, settled: Iterable[Settled]) -> list[str]:
        """Do the effects of some contexts, and return the contexts for which they are done.

        Each context fails for itself: one that is interrupted by a passing error is left out, stays
        due, and its effects are repeated later.
        """
        own = [Job(each) for each in settled]
        self.go_on(own)
        return [job.context for job in own if job.done]

    def go_on(self, jobs: Sequence[Job]) -> None:
        """Do all stages of some jobs, as far as nothing interrupts them."""
        while jobs:
            for stage in Stage:
                now = [job for job in jobs if job.next is stage]
                if now:
                    jobs = [*jobs, *self.perform(stage, now)]
            jobs = [job for job in jobs if job.next is not None]

    def perform(self, stage: Stage, jobs: Sequence[Job]) -> list[Job]:
        """Do one stage of some jobs; note in each what became of it.

        Returns:
            Further jobs that came of it: lists of which the last message has its outcome now.
        """
        further: list[Job] = []
        jobs = [job for job in jobs if stage in job.remaining]
        try:
            if stage in _WITH_BACKEND and not self._opens_backend(stage, jobs):
                return further
            match stage:
                case Stage.WAITERS:
                    self._attempts.each(stage, jobs, lambda job: self._notify(job, further))
                case Stage.CALLBACKS:
                    self._callbacks.perform(jobs)
                case Stage.CANVAS:
                    self._go_on_from(jobs)
                case Stage.RESULTS:
                    self._store(jobs)
                case Stage.TOLD:
                    """No job has it: see :meth:`tell`."""
        finally:
            self._attempts.end(stage)
        self._tell_done(job for job in jobs if job.done)
        return further

    def own_connections(self) -> AbstractContextManager[None]:
        """Return a context for a thread of the effects, in which database connections are new."""
        return own_connections(self._app)

    def hangs_for(self, stage: Stage) -> float:
        """Return for how many seconds a stage has hung in a server that does not answer.

        It is 0.0 as long as that may be an ordinary delay.
        """
        return self._attempts.hangs_for(stage)

    def abandon(self, stage: Stage) -> None:
        """Forget the threads that hang in a stage: others do its jobs."""
        self._attempts.abandon(stage)

    @property
    def tells(self) -> bool:
        """Whether somebody is to be told of successes: the log, or who waits for events."""
        return self._successes.logged or (self._on_done is not None and self._done_matters())

    def needs_records(self, given: Iterable[tuple[Entry, Outcome]]) -> list[Entry]:
        """Return the messages whose contexts' records :meth:`at_once` needs.

        Arguments:
            given: log entries with their outcomes.
        """
        if not self._beside_lanes:
            return []
        return self._here.at_once.needs(given, tells=self.tells)

    def at_once(
        self, given: Iterable[tuple[Entry, Outcome]], records: Mapping[int, Record]
    ) -> list[Decision]:
        """Decide for each outcome what is left to do in the step that settles it.

        Arguments:
            given: log entries with their outcomes.
            records: what was found of :meth:`needs_records`, by the messages' numbers.

        Returns:
            For each: the row that the step is to store; ``NOTHING`` if nothing follows; ``FULL`` if
            :meth:`run` is to do the effects afterwards.
        """
        if not self._beside_lanes:
            return [AtOnce.without_results(entry, outcome) for entry, outcome in given]
        return self._here.at_once.decide(given, records, tells=self.tells)

    def tell(self, finished: Sequence[Settled]) -> None:
        """Tell of successes that the settling step finished: as Celery does, when they are stored.

        Arguments:
            finished: with the record of each.
        """
        self._successes.log(finished)
        if self._on_done is not None:
            for each in finished:
                try:
                    self._on_done(each)
                except Exception:
                    logger.exception(
                        "the effects are done, but on_done failed", context=each.record.context
                    )

    def fail(self, task: str, request: str, failure: Failure, on_error: str | None = None) -> None:
        """Store and tell the failure of a task whose message never came into a lane.

        Arguments:
            task: the name of the task.
            request: its packed request.
            failure: the failure; its context is the task's id.
            on_error: the packed signature to publish.

        Raises:
            Whatever the backend or the broker raises while it is away. Permanent errors are logged.
        """
        call = CallOutcomes(failure.context, is_list=False, outcomes=(failure,))
        for effect in (
            lambda: self._here.tracer.trace(task, failure.context, request, failure),
            lambda: trigger(self._app, call, on_error, request),
        ):
            try:
                effect()
            except Exception as error:
                if kind_of(error, self._app.backend) is Kind.PASSING:
                    raise
                logger.exception(
                    "the failure of a task cannot be told whole", context=failure.context
                )

    def _opens_backend(self, stage: Stage, jobs: Sequence[Job]) -> bool:
        """Return whether this thread has a result backend; if not, the jobs are interrupted.

        Celery makes one for each thread when it is first needed, and some connect at once: those
        for databases create their tables.
        """
        if not self._has_backend:
            self._local.has_backend = self._attempts.prepared(
                stage, jobs, Dependency.BACKEND, lambda: self._app.backend
            )
        return self._has_backend

    @property
    def _has_backend(self) -> bool:
        return getattr(self._local, "has_backend", False)

    def _kind(self, error: BaseException) -> Kind:
        # Do not make a backend to judge an error: that may fail.
        return kind_of(error, self._app.backend if self._has_backend else None)

    @property
    def _here(self) -> OfThread:
        """What this thread needs, made with the thread's own backend."""
        if not hasattr(self._local, "state"):
            self._local.state = OfThread(self._app, self._hostname)
        state: OfThread = self._local.state
        return state

    def _tell_done(self, jobs: Iterable[Job]) -> None:
        """Tell ``on_done`` of jobs, and finish those of other lanes."""
        for job in jobs:
            try:
                if job.lane is not None:
                    finish_jobs(self._require_lanes(), job.lane, [job])
                if self._on_done is not None and job.settled.record.parent is None:
                    self._on_done(job.told)
            except Exception:
                logger.exception(
                    "the effects are done, but finishing or on_done failed", context=job.context
                )

    def _notify(self, job: Job, further: list[Job]) -> None:
        """Notify the process that waits for a context, or settle its place of a list."""
        record = job.settled.record
        if record.parent is not None:
            whole = self._settle_parent(record.parent, job.settled)
            if whole is not None:
                further.append(whole)
        elif record.inbox is not None:
            self._require_lanes().inboxes.notify(record.inbox, job.settled.call)

    def _settle_parent(self, parent: tuple[str, str, int], settled: Settled) -> Job | None:
        """Settle one place of a list that spans lanes; return the job of a list that is complete.

        If the job is lost with this process, the owner of the list's lane does it.
        """
        name, context, place = parent
        lane = Lane.parse(name)
        outcome = settled.failure if settled.failed else settled.outcomes[0]
        of_list = msgspec.structs.replace(outcome, context=context)
        first = settled.record.parent_first
        _, whole = self._require_lanes().settle(
            lane, of_list, place=place, anyone=True, first=first
        )
        return None if whole is None else Job(whole, lane)

    def _store(self, jobs: Sequence[Job]) -> None:
        """Store results; those that are result-only together."""
        here, stage = self._here, Stage.RESULTS
        here.rows.begin()
        batched: list[Job] = []
        untraced: list[Job] = []

        def store(job: Job) -> object:
            kept = len(here.batch)
            if self._store_one(job):
                untraced.append(job)
            else:
                self._trace(job)
            if len(here.batch) > kept:
                batched.append(job)
                return KEPT
            if job not in untraced[-1:]:
                return None
            job.finish(stage)
            return KEPT

        self._attempts.each(stage, jobs, store)
        for job in self._flush(stage, batched):
            job.finish(stage)
        self._successes.log(job.settled for job in untraced if stage not in job.remaining)

    def _go_on_from(self, jobs: Sequence[Job]) -> None:
        """Store results, and publish what goes on from them: together where that is possible."""
        stage, left = Stage.CANVAS, list(jobs)
        if may_publish_together(self._app, len(jobs)) and not self._attempts.is_open(stage):
            batched: list[Job] = []
            stored: list[Job] = []
            parts: dict[Job, ChordPart] = {}
            untraced: list[Job] = []
            batch = self._here.batch
            self._here.rows.begin()

            def trace(job: Job) -> object:
                kept = len(batch)
                if self._store_one(job, counted=True):
                    parts[job] = self._here.tracer.chord_part(job.settled)
                    untraced.append(job)
                    batched.append(job)
                elif self._trace(job, producer):
                    batched.append(job)
                if len(batch) > kept:
                    stored.append(job)
                if (part := batch.take_part()) is not None:
                    parts[job] = part
                return KEPT if job in {*batched[-1:], *stored[-1:]} else None

            try:
                with together(self._app) as producer:
                    self._attempts.each(stage, jobs, trace)
            except Exception as error:  # whatever it is, each goes on by itself
                logger.warning("%d tasks go on one by one: %r", len(batched), error)
                batch.drop()
                left = [job for job in jobs if job.next is stage]
            else:
                if len(batched) > len(untraced):
                    self._attempts.answered(Dependency.BROKER)
                # Celery stores a result when what goes on from it is published.
                failed = {*stored} - {*self._flush(stage, stored)}
                for job in {*batched, *stored} - failed - {*parts}:
                    job.finish(stage)
                self._count(stage, {job: part for job, part in parts.items() if job not in failed})
                done = [each for each in untraced if stage not in each.remaining]
                self._successes.log(each.settled for each in done)
                left = []
        self._attempts.each(stage, left, self._trace)

    def _count(self, stage: Stage, parts: Mapping[Job, ChordPart]) -> None:
        """Count tasks of chords' headers, where their results are stored."""

        def count(job: Job) -> None:
            with following(job.settled.call, job.trace):
                parts[job].count(backend)

        backend: Any = self._app.backend
        with acting_as(self._app):
            self._attempts.each(stage, parts, count)

    def _flush(self, stage: Stage, stored: Sequence[Job]) -> list[Job]:
        """Store the rows of the batch: those of some jobs, in their order.

        Returns:
            The jobs whose rows are stored.
        """
        batch = self._here.batch
        self._attempts.begin(stage)
        try:
            refused: Mapping[int, Exception] = batch.flush()
        except Exception as error:  # the table decides
            batch.drop()
            refused = dict.fromkeys(range(len(stored)), error)
        else:
            if stored:
                self._attempts.answered(Dependency.BACKEND)
        for place, answer in refused.items():
            self._attempts.failed(stage, stored[place], answer)
        return [job for place, job in enumerate(stored) if place not in refused]

    def _store_one(self, job: Job, *, counted: bool = False) -> bool:
        """Add the row of a result to the batch; return False if the tracer is to store it.

        Arguments:
            counted: whether the job is counted for its chord after that.
        """
        settled = job.settled
        if job.error is not None or settled.failed:
            return False
        try:
            decision = self._here.rows.decide(settled.record, settled.result, counted=counted)
        except Exception:
            # What Celery means for such a result is what its tracer stores.
            logger.debug("a result goes through the tracer", context=job.context)
            return False
        if isinstance(decision, ResultRow):
            self._here.batch.keep(decision)
        return decision is not Remaining.FULL

    def _trace(self, job: Job, producer: Together | None = None) -> bool:
        """Let Celery's tracer store a result and do what goes on from it.

        Arguments:
            producer: publishes what goes on, where it can.

        Returns:
            Whether that, and the result, is yet to leave with those of others.
        """
        settled, record = job.settled, job.settled.record
        outcome: Any = settled.failure if settled.failed else settled.result
        with following(settled.call, job.trace):
            traced = self._here.tracer.trace(
                *(str(record.task), record.context, record.request),
                *(job.error or outcome, producer),
            )
        job.rest.note_end(traced.state, traced.error)
        if traced.state == states.RETRY:
            # A new attempt follows, and tells its own outcome.
            job.finish(Stage.CALLBACKS)
            job.rest.ended = ""
        elif traced.error is not None and traced.error is not job.error:
            logger.error(
                "the task ends as %s, after a message that %s: %r",
                traced.state,
                "failed" if settled.failed else "is stored",
                traced.error,
                task=record.task,
                context=job.context,
            )
            if traced.state == states.FAILURE:
                job.give_up(type(traced.error).__name__, "canvas")
                job.fail(traced.error)
        return traced.batched

    def _require_lanes(self) -> Outbox:
        if self._lanes is None:
            raise RuntimeError("these effects have no lanes, so no process can be notified")
        return self._lanes
