"""``effects/jobs.py``: what is left of a settled context, over one round after another."""

from __future__ import annotations

from typing import Any

from celery_stargate.effects.jobs import Job, Rest, Stage, finish_jobs, finished_and_given_up
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, Settled
from tests.unit.helpers import TOPIC, receipt


def settled(context: str) -> Settled:
    """A context with a callback and a result."""
    record = Record(context, task="t", request="{}", on_ack="ack")
    return Settled(record, (receipt(context),))


def test_what_was_interrupted_goes_on_where_it_was() -> None:
    """What was done before is not done again."""
    first = Job(settled("c"))
    first.finish(Stage.CALLBACKS)
    first.interrupted.add(Stage.RESULTS)
    assert first.next is None
    again = Job(settled("c"), rest=first.rest)
    assert again.remaining == [Stage.RESULTS]
    assert again.next is Stage.RESULTS
    assert not again.done
    again.finish(Stage.RESULTS)
    again.finish(Stage.RESULTS)
    assert again.done
    assert Job(settled("c"), rest=Rest()).remaining == [Stage.CALLBACKS, Stage.RESULTS]


def test_the_first_cause_stays() -> None:
    """What failed first is why the dead letter is kept."""
    job = Job(settled("c"))
    job.give_up("OperationalError", "callbacks")
    job.give_up("TimeoutError", "effects")
    assert finished_and_given_up([job]) == ([], [(job.given, "OperationalError callbacks")])


def test_contexts_are_finished_or_given_up() -> None:
    """From any process; Redis is asked only for what there is."""
    asked: list[tuple[str, int]] = []

    class Outbox:
        def finish(self, lane: Lane, done: Any) -> None:
            asked.append(("finish", len(done)))

        def give_up(self, lane: Lane, ended: Any) -> None:
            asked.append(("give up", len(ended)))

    outbox: Any = Outbox()
    done, ended = Job(settled("a")), Job(settled("b"))
    ended.give_up("ValueError", "results")
    lane = Lane(TOPIC)
    for jobs in ([done, ended], [done], [ended], []):
        finish_jobs(outbox, lane, jobs)
    assert asked == [("finish", 1), ("give up", 1), ("finish", 1), ("give up", 1)]
