"""Effects while the result backend is away.

Celery makes a backend for each thread, and those for databases connect when they are made.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any, NoReturn

import pytest
from celery import Celery
from celery.backends.cache import CacheBackend
from kombu.utils import json
from redis.exceptions import ConnectionError as RedisConnectionError

from celery_stargate.effects.jobs import Job, Stage
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.effects.together import Together, together
from celery_stargate.lanes.record import Record, Settled
from tests.unit.helpers import Clock, NotedLanes, make_app, receipt, sent_by_broker

#: How long what is away is left alone, in seconds, at most.
LONG = 100.0


class Database(CacheBackend):
    """A backend that connects when it is made."""

    is_away = False
    thread_safe = False

    def __init__(self, app: Celery, url: str | None = None, **options: Any) -> None:
        if Database.is_away:
            raise LookupError("no server")
        super().__init__(app, backend="memory", **options)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Celery:
    """An app whose backend may be away."""
    monkeypatch.setattr(Database, "is_away", False)
    app = make_app(result_backend=f"{__name__}.Database+db://")
    app.backend  # noqa: B018  # in this thread, as when a worker starts
    return app


@pytest.fixture
def clock() -> Clock:
    """Stand at some moment."""
    return Clock()


@pytest.fixture
def effects(app: Celery, clock: Clock) -> Effects:
    """The app's effects."""
    return Effects(app, None, monotonic=clock)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """A thread of the effects."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


def job(app: Celery, inbox: str | None = None, **request: Any) -> Job:
    """A job with a result and a callback."""
    context = uuid.uuid4().hex
    packed = freeze_callback("on_ack", app.signature("shop.paid"), app)
    given = json.dumps({"id": context, **request})
    task = "celery_stargate.produce"
    record = Record(context, task=task, request=given, on_ack=packed, inbox=inbox)
    return Job(Settled(record, (receipt(context),)))


def perform(thread: ThreadPoolExecutor, effects: Effects, stage: Stage, job: Job) -> Sequence[Job]:
    """Do a stage in the thread."""
    return thread.submit(effects.perform, stage, [job]).result()


@pytest.mark.parametrize("stage", [Stage.CALLBACKS, Stage.CANVAS, Stage.RESULTS])
def test_the_job_waits_for_it(
    app: Celery,
    clock: Clock,
    effects: Effects,
    thread: ThreadPoolExecutor,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is interrupted, whatever the error is; when the backend is back, it is done."""
    waiting = job(app)
    waiting.remaining[:] = [stage]
    monkeypatch.setattr(Database, "is_away", True)
    with caplog.at_level(logging.WARNING):
        assert perform(thread, effects, stage, waiting) == []
    assert waiting.interrupted == {stage}
    assert waiting.remaining == [stage]
    assert "the result backend is away" in caplog.text
    monkeypatch.setattr(Database, "is_away", False)
    # It is not asked again at once.
    perform(thread, effects, stage, waiting)
    assert waiting.remaining == [stage]
    clock.now += LONG
    perform(thread, effects, stage, waiting)
    assert waiting.done


def test_a_thread_that_has_one_publishes_callbacks(
    app: Celery, effects: Effects, thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callback does not wait for a result backend that another thread found to be away."""
    perform(thread, effects, Stage.CALLBACKS, job(app))
    assert sent_by_broker(app)
    monkeypatch.setattr(Database, "is_away", True)
    with ThreadPoolExecutor(1) as other:
        perform(other, effects, Stage.RESULTS, job(app))
    perform(thread, effects, Stage.CALLBACKS, job(app))
    assert sent_by_broker(app)


def test_an_error_of_a_thread_that_has_none(
    app: Celery, thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that cannot be notified: no backend is made to judge the error."""

    class Lanes(NotedLanes):
        @property
        def inboxes(self) -> NoReturn:
            raise ValueError("a key of another type")

    effects = Effects(app, Lanes(), None)  # type: ignore[arg-type]
    waiting = job(app, inbox="ticket")
    monkeypatch.setattr(Database, "is_away", True)
    perform(thread, effects, Stage.WAITERS, waiting)
    assert Stage.WAITERS not in waiting.remaining
    assert Stage.CALLBACKS in waiting.remaining


def away(batch: ResultBatch) -> None:
    """Stand in the place of ``ResultBatch.flush``."""
    raise RedisConnectionError("no server")


def linked(app: Celery, **request: Any) -> Job:
    """A job with a link."""
    link = app.signature("shop.paid", immutable=True)
    made = job(app, callbacks=[link], **request)
    made.remaining[:] = [Stage.CANVAS]
    return made


@pytest.mark.parametrize("stage", [Stage.RESULTS, Stage.CANVAS])
def test_what_is_only_kept_does_not_show_that_it_is_back(
    clock: Clock, stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch is one try: all of it is stored, or it is away for longer."""
    app = make_app(result_backend="redis://redis.invalid:6379/0")
    effects = Effects(app, None, monotonic=clock)
    make = linked if stage is Stage.CANVAS else job
    monkeypatch.setattr(ResultBatch, "flush", away)
    for _ in range(2):
        effects.perform(stage, [make(app), make(app)])
        clock.now += LONG
    assert caplog.text.count("the result backend is away") == 1
    assert "back after" not in caplog.text
    monkeypatch.setattr(ResultBatch, "flush", lambda batch: batch.drop() or {})
    waiting = [make(app), make(app), make(app)]
    effects.perform(stage, waiting)
    assert [stage in each.remaining for each in waiting] == [False] * 3
    assert caplog.text.count("the result backend is back after 200 s") == 1


@pytest.mark.parametrize("stage", [Stage.RESULTS, Stage.CANVAS])
def test_ignored_results_do_not_show_that_it_is_back(
    clock: Clock, stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They need no backend, and are done."""
    app = make_app(result_backend="redis://redis.invalid:6379/0")
    effects = Effects(app, None, monotonic=clock)
    monkeypatch.setattr(ResultBatch, "flush", away)
    effects.perform(Stage.RESULTS, [job(app)])
    clock.now += LONG
    monkeypatch.undo()
    make = linked if stage is Stage.CANVAS else job
    ignoring = [make(app, ignore_result=True), make(app, ignore_result=True)]
    effects.perform(stage, ignoring)
    assert [stage in each.remaining for each in ignoring] == [False] * 2
    assert "is away" in caplog.text
    assert "back after" not in caplog.text


@pytest.mark.parametrize("stage", [Stage.RESULTS, Stage.CANVAS])
def test_a_job_is_not_done_while_its_batch_is_stored(
    thread: ThreadPoolExecutor, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If that hangs, its context comes back, and must not be finished without its result."""
    app = make_app(result_backend="redis://redis.invalid:6379/0")
    effects = Effects(app, None)
    make = linked if stage is Stage.CANVAS else job
    waiting = [make(app), make(app)]
    hangs, goes_on = Event(), Event()

    def flush(batch: ResultBatch) -> None:
        hangs.set()
        assert goes_on.wait(10)
        away(batch)

    monkeypatch.setattr(ResultBatch, "flush", flush)
    performing = thread.submit(effects.perform, stage, waiting)
    assert hangs.wait(10)
    again = [Job(each.given, rest=each.rest) for each in waiting]
    assert [stage in each.remaining for each in again] == [True, True]
    goes_on.set()
    performing.result(10)
    assert [stage in each.remaining for each in again] == [True, True]


def test_a_job_is_not_done_while_its_next_task_is_published(
    thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, where what hangs is the broker that gets the tasks of a batch together."""
    app = make_app(result_backend="redis://redis.invalid:6379/0")
    effects = Effects(app, None)
    waiting = [linked(app), linked(app)]
    hangs, goes_on = Event(), Event()

    @contextmanager
    def hanging(app: Celery) -> Iterator[Together]:
        with together(app) as producer:
            yield producer
        hangs.set()
        assert goes_on.wait(10)

    monkeypatch.setattr("celery_stargate.effects.run.together", hanging)
    monkeypatch.setattr(ResultBatch, "flush", lambda batch: batch.drop() or {})
    performing = thread.submit(effects.perform, Stage.CANVAS, waiting)
    assert hangs.wait(10)
    assert [Stage.CANVAS in each.remaining for each in waiting] == [True, True]
    goes_on.set()
    performing.result(10)
    assert [each.done for each in waiting] == [True, True]
