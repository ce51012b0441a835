"""Effects in a thread in which Celery cannot make the result backend: its server is away.

Celery makes a backend for each thread, and those for databases connect when they are made.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest
from celery import Celery
from celery.backends.cache import CacheBackend

from celery_stargate.effects.jobs import Job, Stage
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.lanes.record import Record, Settled
from tests.unit.helpers import NotedLanes, make_app, receipt, sent_by_broker

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


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


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


def job(app: Celery, **fields: object) -> Job:
    """A job with a result and a callback."""
    context = uuid.uuid4().hex
    packed = freeze_callback("on_ack", app.signature("shop.paid"), app)
    request = f'{{"id": "{context}"}}'
    task = "celery_stargate.produce"
    record = Record(context, task=task, request=request, on_ack=packed, **fields)  # type: ignore[arg-type]
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
    waiting = job(app, inbox=("inbox", "ticket"))
    monkeypatch.setattr(Database, "is_away", True)
    perform(thread, effects, Stage.WAITERS, waiting)
    assert Stage.WAITERS not in waiting.remaining
    assert Stage.CALLBACKS in waiting.remaining
