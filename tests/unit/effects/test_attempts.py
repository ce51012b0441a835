"""``effects/attempts.py``: what becomes of a job whose effect fails, or hangs."""

from __future__ import annotations

import threading

import pytest
from celery.exceptions import Reject

from celery_stargate import LaneFull
from celery_stargate.effects.attempts import STUCK_AFTER, Attempts
from celery_stargate.effects.failures import Kind
from celery_stargate.effects.jobs import Job, Stage
from celery_stargate.lanes.record import Record, Settled
from tests.unit.helpers import Clock, failure, receipt


@pytest.fixture
def clock() -> Clock:
    """Stand at some moment."""
    return Clock()


def attempts(clock: Clock, kind: Kind) -> Attempts:
    """Attempts where all errors are of one kind."""
    return Attempts(lambda error: kind, clock)


def job(context: str = "c", *, failed: bool = False) -> Job:
    """A job with a callback and a result."""
    record = Record(context, task="t", request="{}", on_ack="ack", on_error="error")
    return Job(Settled(record, (failure(context) if failed else receipt(context),)))


def test_a_passing_error_that_blames_nobody(clock: Clock) -> None:
    """The job is tried again, and no other waits for it."""
    tries = attempts(clock, Kind.PASSING)
    one, other = job("a"), job("b")

    def effect(each: Job) -> None:
        if each is one:
            raise LaneFull("lane", 10, 10)

    tries.each(Stage.CALLBACKS, [one, other], effect)
    assert Stage.CALLBACKS in one.interrupted
    assert Stage.CALLBACKS in one.remaining
    assert Stage.CALLBACKS not in other.remaining
    assert not tries.is_open(Stage.CALLBACKS)


def test_a_permanent_error_before_the_result_is_stored(clock: Clock) -> None:
    """The task fails: its failure is stored in place of its result, and ``on_error`` called."""
    tries, one = attempts(clock, Kind.PERMANENT), job()
    tries.failed(Stage.RESULTS, one, ValueError("no JSON"))
    assert isinstance(one.error, ValueError)
    assert one.remaining[0] is Stage.RESULTS
    assert one.callback == "error"
    assert one.rest.ended == "ValueError results"


def test_a_permanent_error_of_a_failure(clock: Clock) -> None:
    """It keeps its own failure, and what failed is not repeated."""
    tries, one = attempts(clock, Kind.PERMANENT), job(failed=True)
    tries.failed(Stage.RESULTS, one, ValueError("no JSON"))
    assert one.error is None
    assert Stage.RESULTS not in one.remaining


def test_a_hook_that_rejects(clock: Clock) -> None:
    """Comes when the result is stored already: the job is done, and nothing is given up."""
    tries, one = attempts(clock, Kind.PERMANENT), job()
    tries.failed(Stage.RESULTS, one, Reject("by a hook"))
    assert Stage.RESULTS not in one.remaining
    assert one.rest.ended is None


def test_a_stage_that_hangs(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Is told to all, and logged at once and then each five minutes."""
    tries = attempts(clock, Kind.PASSING)
    tries.begin(Stage.RESULTS)
    tries.begin(Stage.CALLBACKS)
    assert tries.hangs_for(Stage.RESULTS) == 0.0
    clock.now += STUCK_AFTER + 1.0
    for _ in range(10):
        assert tries.hangs_for(Stage.RESULTS) > STUCK_AFTER
    assert len(caplog.records) == 1
    clock.now += 301.0
    assert tries.hangs_for(Stage.RESULTS) > 300.0
    assert len(caplog.records) == 2
    tries.end(Stage.RESULTS)
    assert tries.hangs_for(Stage.RESULTS) == 0.0
    assert tries.hangs_for(Stage.CALLBACKS) > 300.0


def test_a_thread_that_was_left(clock: Clock) -> None:
    """Counts no more, and the thread in its place is judged by itself."""
    tries = attempts(clock, Kind.PASSING)
    hanging = threading.Thread(target=tries.begin, args=(Stage.RESULTS,))
    hanging.start()
    hanging.join(10)
    tries.begin(Stage.CALLBACKS)
    clock.now += 60.0
    assert tries.hangs_for(Stage.RESULTS) == 60.0
    tries.abandon(Stage.RESULTS)
    assert tries.hangs_for(Stage.RESULTS) == 0.0
    assert tries.hangs_for(Stage.CALLBACKS) == 60.0
    tries.begin(Stage.RESULTS)
    assert tries.hangs_for(Stage.RESULTS) == 0.0
