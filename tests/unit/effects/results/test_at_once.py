"""What is done in the step that settles, and of which messages the records are read before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celery_stargate import Receipt
from celery_stargate.effects.results.at_once import AtOnce
from celery_stargate.effects.results.rows import ResultRows
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.lanes.record import Record
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import Decision, FollowUp, Remaining, ResultRow
from celery_stargate.model.outcome import Outcome
from tests.unit.effects.results.rig import TASK, redis_app
from tests.unit.helpers import failure, make_app, receipt

KNOWN = Record("c", task=TASK, request=json.dumps({"group": "g", "parent_id": "p"}))


def at_once(**conf: Any) -> AtOnce:
    """Return the decision of an app."""
    app = redis_app(**conf)
    return AtOnce(ResultRows(app, ResultBatch(app.backend)))


def one(
    follow_up: FollowUp = FollowUp.MORE,
    record: Record | None = KNOWN,
    *,
    outcome: Outcome | None = None,
    tells: bool = False,
    step: AtOnce | None = None,
) -> Decision:
    """Decide about one message."""
    entry, records = Entry(7, "c", b"", follow_up=follow_up), {} if record is None else {7: record}
    [found] = (step or at_once()).decide([(entry, outcome or receipt("c"))], records, tells=tells)
    return found


def test_the_records_that_are_needed() -> None:
    """Where the log does not tell enough, and where somebody is to be told of a success."""
    step = at_once()
    given: list[tuple[Entry, Outcome]] = [
        *((Entry(1, "c", b"", follow_up=each), receipt("c")) for each in FollowUp),
        (Entry(2, "c", b""), failure("c")),
        (Entry(3, "c\t0", b"", place=0), receipt("c")),
        (Entry(4, "c", b"", inbox="i/1"), receipt("c")),
    ]
    found = [entry.follow_up for entry in step.needs(given, tells=False)]
    assert found == [FollowUp.MORE]
    told = {entry.follow_up for entry in step.needs(given, tells=True)}
    assert told == {FollowUp.MORE, FollowUp.RESULT, FollowUp.IGNORED}


def test_a_group_and_a_parent_are_stored_with_the_result() -> None:
    """By the record; without it all is left to do."""
    row = one()
    assert isinstance(row, ResultRow)
    stored = json.loads(row.value)
    assert (stored["group_id"], stored["parent_id"]) == ("g", "p")
    assert one(record=None) is Remaining.FULL
    assert one(outcome=failure("c")) is Remaining.FULL


@pytest.mark.parametrize(
    "record",
    [
        Record("c", task=TASK, on_ack="{}"),
        Record("c", task=TASK, inbox="i/1"),
        Record("c", parent=("lane", "list", 0)),
        Record("c", task=TASK, replayed=(1, 2)),
        Record("c", task=TASK, is_list=True),
        Record("c"),
        Record("c", task=TASK, request='{"chain": [{"task": "x"}]}'),
        Record("c", task=TASK, request='{"retries": 1}'),
    ],
    ids=["on_ack", "a waiter", "a list", "a replay", "a list of one", "no task", "chain", "retry"],
)
def test_what_more_than_a_result_follows(record: Record) -> None:
    """Is left to the effects."""
    assert one(record=record) is Remaining.FULL


def test_who_is_told_needs_the_record() -> None:
    """Or the effects tell it."""
    assert isinstance(one(FollowUp.RESULT, None), ResultRow)
    assert one(FollowUp.RESULT, None, tells=True) is Remaining.FULL
    assert isinstance(one(FollowUp.RESULT, KNOWN, tells=True), ResultRow)
    assert one(FollowUp.NOTHING, None, tells=True) is Remaining.NOTHING


def test_another_backend() -> None:
    """Its results are not in the lanes' Redis; where there is none, nothing is stored."""
    sentinel = at_once(result_backend="sentinel://host:1")
    assert one(step=sentinel) is Remaining.FULL
    app = make_app(result_backend=None)
    nowhere = AtOnce(ResultRows(app, ResultBatch(app.backend)))
    assert one(step=nowhere) is Remaining.NOTHING


def test_a_result_that_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    """Is told, and left to the general way."""
    odd = Receipt(context="c", value=object())
    assert one(FollowUp.RESULT, None, outcome=odd) is Remaining.FULL
    assert "a result will be stored by itself" in caplog.text
