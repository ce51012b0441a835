"""Which results are result-only; every other one goes through Celery's tracer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from celery import signals
from celery.app.trace import logger as trace_logger
from celery.app.trace import reset_worker_optimizations, setup_worker_optimizations
from celery.backends.redis import RedisBackend
from celery.loaders.app import AppLoader

from celery_stargate import ProduceTask
from celery_stargate.effects.results.rows import ResultRows
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.lanes.record import Record
from celery_stargate.model.follow_up import Remaining, ResultRow
from tests.unit.effects.results.rig import (
    IGNORED,
    NOT_PLAIN,
    PLAIN,
    REDIS,
    TASK,
    Clock,
    own,
    redis_app,
    store,
)
from tests.unit.helpers import make_app


def other_body(self: ProduceTask, *_args: Any, **_options: Any) -> Any:
    """Return something else than the receipt."""
    return self.name


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
    setup_worker_optimizations(app, "worker@host")
    try:
        assert store(app) == PLAIN
    finally:
        reset_worker_optimizations(app)


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
    """Celery's line of each success does not need its tracer."""
    trace_logger.setLevel(logging.INFO)
    assert store(redis_app()) == PLAIN


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
