"""Jobs: the effects of one settled context, as stages that wait for different servers."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from celery import states
from msgspec.structs import replace

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Ended, Settled
from celery_stargate.model.follow_up import Request, read_request
from celery_stargate.model.outcome import Failure
from celery_stargate.model.outcomes import CallOutcomes

__all__ = ["Job", "Rest", "Stage", "finish_jobs", "finished_and_given_up"]


class Stage(Enum):
    """One part of the effects. Each has a thread of its own, so that none waits for another."""

    WAITERS = "notify waiting callers"  #: needs the Redis of the lanes
    CALLBACKS = "publish callbacks"  #: needs Celery's broker
    CANVAS = "store the result and publish what goes on from it"  #: needs backend and broker
    RESULTS = "store the result"  #: needs the result backend
    #: Needs no server. No job has it: the contexts are finished, and only what Celery logs and
    #: sends of them is left.
    TOLD = "log the success and send its events"


class Rest:
    """What is left to do for one context.

    Arguments:
        since: when its effects began, by the clock of whoever bounds them.
    """

    __slots__ = ("ended", "error", "remaining", "since", "traced", "tries")

    def __init__(self, since: float = 0.0) -> None:
        self.since = since
        #: The stages, in order; None until the job is made.
        self.remaining: list[Stage] | None = None
        #: Why the task failed although the message has a receipt; None if it did not.
        self.error: BaseException | None = None
        #: How it ended, if not by success: the cause of its dead letter, or empty for a task that
        #: Celery tries again.
        self.ended: str | None = None
        #: How Celery's tracer ended the task; None for a success, or where it did not trace it.
        self.traced: Ended | None = None
        #: How often a passing error interrupted it.
        self.tries = 0

    def note_end(self, state: str, error: BaseException | None) -> None:
        """Note how Celery's tracer ended the task; a success says no more than the outcomes.

        Arguments:
            state: of Celery.
            error: the exception, if there is one.
        """
        self.traced = None if state == states.SUCCESS else Ended(state, error)


class Job:
    """What is done for one settled context.

    Waiting callers come first. ``on_ack`` is published before the result is stored, as Celery
    publishes a link: if it cannot be published, the task fails. A stage that is interrupted does
    not hold back the others.

    Arguments:
        settled: the context.
        lane: where it is finished, if that is not the lane of the queue it is in.
        rest: what was left of it, if it was interrupted.
    """

    __slots__ = ("context", "given", "interrupted", "lane", "remaining", "rest", "settled")

    def __init__(
        self, settled: Settled, lane: Lane | None = None, rest: Rest | None = None
    ) -> None:
        #: The context as its lane knows it, and its name there.
        self.given = settled
        self.context = settled.record.context
        request = read_request(settled.record.request)
        self.settled = _as_task(settled, request)
        self.lane = lane
        self.rest = rest or Rest()
        if self.rest.remaining is None:
            self.rest.remaining = _stages(settled, request)
        #: What is left to do, in order.
        self.remaining: list[Stage] = self.rest.remaining
        #: Stages that a passing error interrupted in this round.
        self.interrupted: set[Stage] = set()

    @property
    def error(self) -> BaseException | None:
        """Why the task failed although the message has a receipt; None if it did not."""
        return self.rest.error

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.remaining

    @property
    def next(self) -> Stage | None:
        """The next stage; None if nothing more can be done in this round."""
        for stage in self.remaining:
            if stage not in self.interrupted:
                return stage
        return None

    def finish(self, stage: Stage) -> None:
        """Note that a stage is done."""
        if stage in self.remaining:
            self.remaining.remove(stage)

    def give_up(self, error: str, what: str) -> None:
        """Note that a part of the effects is not done, and never will be.

        Arguments:
            error: the class of the error.
            what: the part, as a word.
        """
        if not self.rest.ended:
            self.rest.ended = f"{error} {what}"

    def fail(self, error: BaseException) -> bool:
        """Note a permanent error: the task of a stored message fails, and triggers ``on_error``.

        Returns:
            Whether it counts; a message that failed keeps its own failure.
        """
        if self.rest.error is not None or self.settled.failed:
            return False
        self.rest.error = error
        self.finish(Stage.CALLBACKS)
        if self.settled.record.on_error is not None:
            self.remaining.append(Stage.CALLBACKS)
        return True

    @property
    def told(self) -> Settled:
        """The context for who is told of its end: with how its task ended, if not by success."""
        if self.rest.traced is None:
            return self.settled
        return replace(self.settled, ended=self.rest.traced)

    @property
    def call(self) -> CallOutcomes:
        """The outcomes that the callback gets."""
        if self.error is None:
            return self.settled.call
        record, failure = self.settled.record, _failure(self.settled, self.error)
        return CallOutcomes(record.context, False, (failure,), record.incarnation)

    @property
    def callback(self) -> str | None:
        """The packed signature to publish."""
        return self.settled.callback if self.error is None else self.settled.record.on_error

    @property
    def trace(self) -> dict[str, str] | None:
        """The context of the call's trace; None without one."""
        return self.settled.trace

    @property
    def request(self) -> str | None:
        """The packed request of the task, from which the callback inherits."""
        return self.settled.request


def finished_and_given_up(
    jobs: Iterable[Job],
) -> tuple[list[Settled], list[tuple[Settled, str]]]:
    """Return the contexts of jobs that are done: those to finish, and those to give up.

    The latter come with the cause of their dead letter, as ``Outbox.give_up`` takes it.
    """
    done: list[Settled] = []
    given_up: list[tuple[Settled, str]] = []
    for job in jobs:
        if job.rest.ended is None:
            done.append(job.given)
        else:
            given_up.append((job.given, job.rest.ended))
    return done, given_up


def finish_jobs(outbox: Outbox, lane: Lane, jobs: Iterable[Job]) -> None:
    """Finish the contexts of jobs that are done, from any process.

    Raises:
        StoreUnavailable: Redis did not answer in bounded time.
    """
    done, given_up = finished_and_given_up(jobs)
    if done:
        outbox.finish(lane, done)
    if given_up:
        outbox.give_up(lane, given_up)


def _as_task(settled: Settled, request: Request | None) -> Settled:
    """Return a later attempt under the id of its task: its context is another one."""
    name = settled.record.original
    if request is not None and request.retries and request.id:
        name = request.id
    if name == settled.record.context:
        return settled
    outcomes = tuple(replace(each, context=name) for each in settled.outcomes)
    return replace(settled, record=replace(settled.record, context=name), outcomes=outcomes)


def _stages(settled: Settled, request: Request | None) -> list[Stage]:
    record = settled.record
    if record.parent is not None:
        return [Stage.WAITERS]
    callbacks = [Stage.CALLBACKS] if settled.callback is not None else []
    results: list[Stage] = []
    if record.task is not None:
        plain = request is not None and not request.goes_on
        if settled.failed:
            plain = plain and request is not None and not request.errbacks
        results = [Stage.RESULTS if plain else Stage.CANVAS]
    # A failure may be retried; then nothing is published.
    rest = [*results, *callbacks] if settled.failed else [*callbacks, *results]
    return [Stage.WAITERS, *rest] if record.inbox is not None or not rest else rest


def _failure(settled: Settled, error: BaseException) -> Failure:
    outcomes = [each.to_dict() for each in settled.outcomes]
    return Failure(
        context=settled.record.context,
        topic=settled.outcomes[0].topic,
        status="unknown",
        reason=(
            "the message is stored, but what follows its receipt cannot be done: "
            f"{type(error).__name__}: {error}"
        ),
        code=type(error).__name__,
        outcomes=outcomes,
    )
