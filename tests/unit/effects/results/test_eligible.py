"""Plain results: which they are, and that every other goes through Celery's tracer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from celery import Celery, _state, signals
from celery.app.trace import logger as trace_logger
from celery.app.trace import reset_worker_optimizations, setup_worker_optimizations
from celery.backends.redis import RedisBackend
from celery.loaders.app import AppLoader

from celery_stargate import ProduceTask
from celery_stargate.effects.results.rows import ResultRows
from celery_stargate.effects.results.template import ResultTemplate
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.effects.tracer import run
from celery_stargate.lanes.record import Record
from celery_stargate.model.follow_up import Decision, FollowUp, Remaining, ResultRow
from tests.unit.helpers import make_app, receipt

#: Nothing is written to it: a batch keeps what it gets.
REDIS = "redis://redis.invalid:6379/0"
TASK = ProduceTask.default_name


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The log is at WARNING, as by default; a test elsewhere may have changed that."""
    before = trace_logger.level
    trace_logger.setLevel(logging.WARNING)
    yield
    trace_logger.setLevel(before)


def redis_app(**conf: Any) -> Celery:
    """Return an app with the Redis backend."""
    return make_app(**{"result_backend": REDIS, **conf})


def store(
    app: Celery, request: str | None = None, task: str = ProduceTask.default_name
) -> type[ResultRow] | Remaining:
    """Decide about one result; return the kind of the decision."""
    batch = ResultBatch(app.backend)
    record = Record("c", task=task, request=request)
    found = ResultRows(app, batch).decide(record, receipt().to_dict())
    # The row is the caller's: nothing stays in the batch.
    assert len(batch) == 0
    return ResultRow if isinstance(found, ResultRow) else found


def own(app: Celery, base: type = ProduceTask, body: Any = run, **options: Any) -> str:
    """Give an app a produce task of its own; return its name."""
    given: dict[str, Any] = {"bind": True, "base": base, "shared": False, **options}
    make: Any = app.task(name="shop.own", **given)
    make(body)
    return "shop.own"


def other_body(self: ProduceTask, *_args: Any, **_options: Any) -> Any:
    """Return something else than the receipt."""
    return self.name


PLAIN = ResultRow
IGNORED = Remaining.NOTHING
NOT_PLAIN = Remaining.FULL


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


def test_a_task_that_ignores_its_results() -> None:
    """Stores none; where the call says otherwise, Celery's versions differ in what counts."""
    app = redis_app()
    name = own(app, ignore_result=True)
    assert store(app, task=name) == IGNORED
    assert store(app, '{"ignore_result":true}', task=name) == IGNORED
    assert store(app, '{"ignore_result":false}', task=name) == NOT_PLAIN
    assert store(redis_app(task_ignore_result=True)) == IGNORED


def test_in_a_worker() -> None:
    """A worker gives every task a ``__call__`` of Celery's, which is no work of its own."""
    app = redis_app()
    before: Any = getattr(_state, "default_app", None), _state.get_current_app()
    setup_worker_optimizations(app, "worker@host")
    try:
        assert store(app) == PLAIN
    finally:
        reset_worker_optimizations(app)
        _state.set_default_app(before[0])
        before[1].set_current()


@pytest.mark.parametrize("hook", ["before_start", "on_success", "after_return", "__call__"])
def test_a_task_with_work_of_its_own(hook: str) -> None:
    """Has the tracer do it; a task without does not."""
    app = redis_app()
    assert store(app, task=own(app, type("Own", (ProduceTask,), {}))) == PLAIN
    app = redis_app()
    hooked = type("Hooked", (ProduceTask,), {hook: lambda *_args, **_options: None})
    assert store(app, task=own(app, hooked)) == NOT_PLAIN


@pytest.mark.parametrize(
    "options",
    [
        {"track_started": True},
        {"autoretry_for": (KeyError,)},
        {"body": other_body},
    ],
)
def test_other_tasks(options: dict[str, Any]) -> None:
    """One with a state before the result, or with another body."""
    app = redis_app()
    assert store(app, task=own(app, **options)) == NOT_PLAIN


def test_a_task_with_a_backend_of_its_own() -> None:
    """Its results do not belong into the app's."""
    app = redis_app()
    name = own(app)
    app.tasks[name].backend = redis_app().backend
    assert store(app, task=name) == NOT_PLAIN


def test_what_is_no_produce_task() -> None:
    """Is left to the tracer, which tells so; so is a context without a task."""
    app = redis_app()

    @app.task(name="shop.other", shared=False)
    def other() -> None:
        """Do nothing."""

    assert store(app, task="shop.other") == NOT_PLAIN
    assert store(app, task="shop.gone") == NOT_PLAIN
    rows = ResultRows(app, ResultBatch(app.backend))
    assert rows.decide(Record("c"), {}) is Remaining.FULL
    assert isinstance(rows.decide(Record("c", task=TASK), {}), ResultRow)


@pytest.mark.parametrize(
    "conf",
    [
        {"result_extended": True},
        {"worker_deduplicate_successful_tasks": True},
        {"task_track_started": True},
    ],
)
def test_settings(conf: dict[str, Any]) -> None:
    """By which Celery does more."""
    assert store(redis_app(**conf)) == NOT_PLAIN


@pytest.mark.parametrize("hook", ["on_task_init", "on_process_cleanup"])
def test_a_loader_with_work_of_its_own(hook: str) -> None:
    """It is called around each task."""
    app: Any = redis_app()
    app.loader = type("Hooked", (AppLoader,), {hook: lambda *_: None})(app)
    assert store(app) == NOT_PLAIN


def test_backends() -> None:
    """Only on Redis is there a batch; where nothing is stored, any backend of Celery's will do."""
    memory = make_app()
    assert store(memory) == NOT_PLAIN
    assert store(memory, '{"ignore_result":true}') == IGNORED
    assert store(make_app(result_backend=None)) == IGNORED
    app: Any = redis_app()
    kind = type("Mine", (RedisBackend,), {"__module__": "shop"})
    app._local.backend = kind(app=app, url=REDIS)  # noqa: SLF001
    assert store(app) == NOT_PLAIN
    assert store(app, '{"ignore_result":true}') == NOT_PLAIN


def test_the_log() -> None:
    """Celery tells of each success at INFO, with a part of the result."""
    trace_logger.setLevel(logging.INFO)
    assert store(redis_app()) == NOT_PLAIN


def hearing(module: str) -> Callable[..., None]:
    """Return a signal's receiver that is defined in a module."""

    def receive(**_: Any) -> None:
        """Hear."""

    receive.__module__ = module
    return receive


@pytest.mark.parametrize("name", ["task_prerun", "task_postrun", "task_success"])
def test_who_hears_of_a_task(name: str) -> None:
    """Is told by the tracer; Celery's own receivers have nothing to clean up after no task."""
    signal = getattr(signals, name)
    for module, expected in (("celery.fixups.django", PLAIN), ("shop", NOT_PLAIN)):
        receiver = hearing(module)
        signal.connect(receiver)
        try:
            assert store(redis_app()) == expected
        finally:
            signal.disconnect(receiver)


class Clock:
    """The time, as a test wants it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_could_hear_is_looked_up_once() -> None:
    """For a batch; the next one sees who came."""
    app = redis_app()
    rows, record = ResultRows(app, ResultBatch(app.backend)), Record("c", task=TASK)
    receiver = hearing("shop")
    signals.task_success.connect(receiver)
    try:
        assert isinstance(rows.decide(record, {}), ResultRow)
        rows.begin()
        assert rows.decide(record, {}) is Remaining.FULL
    finally:
        signals.task_success.disconnect(receiver)
    rows.begin()
    assert isinstance(rows.decide(record, {}), ResultRow)


def test_settings_are_looked_at_again_after_a_second() -> None:
    """For each message that comes alone they would cost more than all else."""
    app, clock = redis_app(), Clock()
    rows, record = ResultRows(app, ResultBatch(app.backend), clock), Record("c", task=TASK)
    app.conf.result_extended = True
    clock.now = 0.9
    rows.begin()
    assert isinstance(rows.decide(record, {}), ResultRow)
    clock.now = 1.0
    rows.begin()
    assert rows.decide(record, {}) is Remaining.FULL


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

    def of(batch: ResultBatch) -> ResultTemplate | None:
        made.append(batch)
        return make(batch)

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
