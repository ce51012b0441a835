"""Result rows: the decision about a receipt, and that a row is what Celery would store."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from celery import Celery

from celery_stargate import ProduceTask
from celery_stargate.effects.results.rows import ResultRows
from celery_stargate.effects.results.template import ResultTemplate
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.lanes.record import Record
from celery_stargate.model.follow_up import Decision, FollowUp, Remaining, ResultRow
from tests.unit.effects.results.rig import (
    IGNORED,
    NOT_PLAIN,
    PLAIN,
    TASK,
    Clock,
    own,
    redis_app,
    store,
)
from tests.unit.helpers import make_app, receipt


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (None, PLAIN),
        ({}, PLAIN),
        ({"group": "g", "parent_id": "p", "root_id": "r"}, PLAIN),
        ({"errbacks": [{"task": "x"}], "callbacks": None, "chain": []}, PLAIN),
        ({"ignore_result": False}, PLAIN),
        ({"ignore_result": True}, IGNORED),
        ({"callbacks": [{"task": "x"}]}, NOT_PLAIN),
        ({"chain": [{"task": "x"}]}, NOT_PLAIN),
        ({"chord": {"task": "x"}}, NOT_PLAIN),
        ({"group": {"__type__": "uuid", "__value__": {"hex": "0"}}}, NOT_PLAIN),
        ({"later": float("nan")}, NOT_PLAIN),
        ([], NOT_PLAIN),
    ],
)
def test_requests(request_: Any, expected: Any) -> None:
    """Nothing may go on from a rows result; what cannot be read for sure is none."""
    packed = None if request_ is None else json.dumps(request_)
    assert store(redis_app(), packed) == expected


@pytest.mark.parametrize(
    ("request_", "plain"),
    [
        ({"chord": {"task": "x"}, "group": "g"}, True),
        ({"chord": {"task": "x"}, "callbacks": [{"task": "y"}]}, False),
        ({"chord": {"task": "x"}, "retries": 1}, False),
    ],
)
def test_a_task_of_a_chord(request_: dict[str, Any], plain: bool) -> None:
    """Its result is a row for who counts it after that, and for nobody else."""
    app = redis_app()
    rows = ResultRows(app, ResultBatch(app.backend))
    record = Record("c", task=ProduceTask.default_name, request=json.dumps(request_))
    assert isinstance(rows.decide(record, 1, counted=True), ResultRow) is plain
    assert rows.decide(record, 1) is Remaining.FULL


def test_what_is_stored_is_celerys() -> None:
    """With the group and the parent beside it."""
    app = redis_app()
    backend: Any = app.backend
    batch = ResultBatch(backend)
    request = json.dumps({"group": "g", "parent_id": "p"})
    record = Record("c", task=ProduceTask.default_name, request=request)
    row = ResultRows(app, batch).decide(record, [1])
    assert isinstance(row, ResultRow)
    key, value, _ = row
    assert key == backend.get_key_for_task("c").decode()
    meta = json.loads(value)
    assert meta.pop("date_done")
    assert meta == {
        "status": "SUCCESS",
        "result": [1],
        "traceback": None,
        "children": [],
        "group_id": "g",
        "parent_id": "p",
        "task_id": "c",
    }


def test_each_batch_has_its_own_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is that of the app; the form, which is Celery's, is made once."""
    app, clock = redis_app(), Clock()
    batch = ResultBatch(app.backend)
    rows, record = ResultRows(app, batch, clock), Record("c", task=TASK)
    made = []
    mark = batch.backend.mark_as_done

    def mark_as_done(*args: Any) -> None:
        made.append(args)
        mark(*args)

    monkeypatch.setattr(batch.backend, "mark_as_done", mark_as_done)
    dates = []
    for _ in range(3):
        rows.begin()
        before = app.now()
        row = rows.decide(record, {})
        assert isinstance(row, ResultRow)
        value: Any = row.value
        done = datetime.fromisoformat(json.loads(value)["date_done"])
        assert before <= done <= app.now()
        dates.append(done)
    assert len(set(dates)) == 3
    assert len(made) == 1


def test_a_form_that_does_not_last_is_made_for_each_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Should Celery write its date otherwise one day."""
    app = redis_app()
    batch = ResultBatch(app.backend)
    rows, record = ResultRows(app, batch, Clock()), Record("c", task=TASK)
    monkeypatch.setattr(ResultTemplate, "lasts", False)
    made = []
    make = ResultTemplate.of

    def of(batch: ResultBatch, *kind: bool) -> ResultTemplate | None:
        made.append(batch)
        return make(batch, *kind)

    monkeypatch.setattr(ResultTemplate, "of", of)
    for _ in range(2):
        rows.begin()
        assert isinstance(rows.decide(record, {}), ResultRow)
        assert isinstance(rows.decide(record, {}), ResultRow)
    assert len(made) == 2


def at_once(app: Celery, follow_up: FollowUp = FollowUp.RESULT, task: str = TASK) -> Decision:
    """Ask for the result of one receipt."""
    return ResultRows(app, ResultBatch(app.backend)).decide_early(task, follow_up, receipt("c"))


def test_a_result_at_once_is_what_is_stored_else() -> None:
    """The same key, value and end; and nothing is kept."""
    app = redis_app(result_expires=60)
    batch = ResultBatch(app.backend)
    rows = ResultRows(app, batch)
    found = rows.decide_early(TASK, FollowUp.RESULT, receipt("c"))
    assert len(batch) == 0
    stored = rows.decide(Record("c", task=TASK), receipt("c").to_dict())
    assert isinstance(found, ResultRow)
    assert found == stored


def test_what_is_ignored_is_done_at_once() -> None:
    """Wherever results are stored."""
    for app in (redis_app(), make_app(), make_app(result_backend=None)):
        assert at_once(app, FollowUp.IGNORED) is Remaining.NOTHING
    assert at_once(make_app(result_backend=None)) is Remaining.NOTHING


@pytest.mark.parametrize(
    "app",
    [
        lambda: redis_app(result_extended=True),
        lambda: redis_app(result_serializer="pickle", accept_content=["json", "pickle"]),
        lambda: redis_app(task_ignore_result=True),
        make_app,
        lambda: redis_app(result_backend="sentinel://host:1"),
    ],
    ids=["extended", "pickle", "ignored by the task", "memory", "sentinel"],
)
def test_what_cannot_be_done_at_once(app: Callable[[], Celery]) -> None:
    """Is left to the general ways."""
    assert at_once(app()) is Remaining.FULL


def test_tasks_at_once() -> None:
    """One without work of its own, known here by that name."""
    app = redis_app()
    assert isinstance(at_once(app, task=own(app)), ResultRow)
    assert at_once(app, task="shop.gone") is Remaining.FULL
    for each in (app, make_app(result_backend=None)):
        assert at_once(each, FollowUp.MORE) is Remaining.FULL
    app = redis_app()
    hooked = type("Hooked", (ProduceTask,), {"on_success": lambda *_args, **_options: None})
    assert at_once(app, task=own(app, hooked)) is Remaining.FULL
    app = redis_app()
    batch = ResultBatch(app.backend)
    assert (
        ResultRows(app, batch).decide_early(TASK, FollowUp.RESULT, receipt('a"b')) is Remaining.FULL
    )


def test_an_id_that_json_escapes_has_no_template() -> None:
    """Its row is made by Celery's backend."""
    app = redis_app()
    batch = ResultBatch(app.backend)
    row = ResultRows(app, batch).decide(Record('a"b', task=TASK), receipt('a"b').to_dict())
    assert isinstance(row, ResultRow)
    assert json.loads(row.value)["task_id"] == 'a"b'
    assert row.key == batch.backend.get_key_for_task('a"b').decode()
