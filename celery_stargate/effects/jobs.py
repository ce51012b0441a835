"""Jobs: the effects of one settled context, as stages that wait for different servers."""

from __future__ import annotations

from enum import Enum

import msgspec

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Settled
from celery_stargate.model.follow_up import read_request
from celery_stargate.model.outcome import Failure
from celery_stargate.model.outcomes import CallOutcomes

__all__ = ["Job", "Rest", "Stage"]


class Stage(Enum):
    """One part of the effects. Each has a thread of its own, so that none waits for another."""

    WAITERS = "notify waiting callers"  #: needs the Redis of the lanes
    CALLBACKS = "publish callbacks"  #: needs Celery's broker
    CANVAS = "store the result and publish what goes on from it"  #: needs backend and broker
    RESULTS = "store the result"  #: needs the result backend


class Rest:
    """What is left to do for one context.

    Arguments:
        since: when its effects began, by the clock of whoever bounds them.
    """

    __slots__ = ("error", "remaining", "since")

    def __init__(self, since: float = 0.0) -> None:
        self.since = since
        #: The stages, in order; None until the job is made.
        self.remaining: list[Stage] | None = None
        #: Why the task failed although the message has a receipt; None if it did not.
        self.error: BaseException | None = None


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

    __slots__ = ("interrupted", "lane", "remaining", "rest", "settled")

    def __init__(
        self, settled: Settled, lane: Lane | None = None, rest: Rest | None = None
    ) -> None:
        self.settled = settled
        self.lane = lane
        self.rest = rest or Rest()
        if self.rest.remaining is None:
            self.rest.remaining = _stages(settled)
        #: What is left to do, in order.
        self.remaining: list[Stage] = self.rest.remaining
        #: Stages that a passing error interrupted in this round.
        self.interrupted: set[Stage] = set()

    @property
    def error(self) -> BaseException | None:
        """Why the task failed although the message has a receipt; None if it did not."""
        return self.rest.error

    @property
    def context(self) -> str:
        """The id of the context."""
        return self.settled.record.context

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

    def fail(self, error: BaseException) -> None:
        """Note a permanent error: the task fails with it, and ``on_error`` is triggered."""
        self.rest.error = error
        self.finish(Stage.CALLBACKS)
        if self.settled.record.on_error is not None:
            self.remaining.append(Stage.CALLBACKS)

    @property
    def call(self) -> CallOutcomes:
        """The outcomes that the callback gets."""
        if self.error is None:
            return self.settled.call
        settled = self.settled
        return CallOutcomes(self.context, is_list=False, outcomes=(_failure(settled, self.error),))

    @property
    def callback(self) -> str | None:
        """The packed signature to publish."""
        return self.settled.callback if self.error is None else self.settled.record.on_error


def _stages(settled: Settled) -> list[Stage]:
    record = settled.record
    if record.parent is not None:
        return [Stage.WAITERS]
    callbacks = [Stage.CALLBACKS] if settled.callback is not None else []
    results: list[Stage] = []
    if record.task is not None:
        request = read_request(record.request)
        plain = request is not None and not request.goes_on
        if settled.failed:
            plain = plain and request is not None and not request.errbacks
        results = [Stage.RESULTS if plain else Stage.CANVAS]
    # A failure may be retried; then nothing is published.
    rest = [*results, *callbacks] if settled.failed else [*callbacks, *results]
    return [Stage.WAITERS, *rest] if record.inbox is not None or not rest else rest


def _failure(settled: Settled, error: BaseException) -> Failure:
    outcomes = [msgspec.structs.asdict(each) for each in settled.outcomes]
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
