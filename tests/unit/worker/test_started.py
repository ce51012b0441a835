"""Who tells that a callback's task has started."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.signals import task_prerun, task_revoked

from celery_stargate import Stargate
from celery_stargate.calls.runtime import Runtime
from celery_stargate.effects.callbacks import STARTED_HEADER
from celery_stargate.worker import started
from celery_stargate.worker.started import StartsStep
from tests.unit.helpers import make_app


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Runtime, object]]]:
    """What was told to have started; the receivers are gone afterwards."""
    found: list[tuple[Runtime, object]] = []
    monkeypatch.setattr(started, "note_start", lambda *given: found.append(given))
    yield found
    for each in (task_prerun, task_revoked):
        each.disconnect(dispatch_uid="celery_stargate.started")


def worker(**conf: Any) -> Any:
    """Return what the step needs of a worker."""
    app = make_app(**conf)
    Stargate(app)
    return SimpleNamespace(app=app, steps=[])


class _Task:
    """A task, as its signals' receivers see it."""

    def __init__(self, app: Any, request: Any) -> None:
        self.app = app
        self.request = request


def happens(app: Any, *headers: dict[str, str]) -> None:
    """Let a task with each of these headers begin, and one be revoked."""
    for number, each in enumerate(headers):
        request = SimpleNamespace(**each)
        task = _Task(app, request)
        if number % 2:
            task_revoked.send(sender=task, request=request, terminated=False)
        else:
            task_prerun.send(sender=task, task_id="t", task=task, args=(), kwargs={})


KEPT = {STARTED_HEADER: "begins"}, {STARTED_HEADER: "revoked"}


def test_each_start_is_told_once_and_so_is_each_end_without_one(
    noted: list[tuple[Runtime, object]],
) -> None:
    """Also where a process makes two workers."""
    parent = worker(stargate_callbacks="until_started")
    StartsStep(parent)
    StartsStep(parent)
    happens(parent.app, *KEPT)
    runtime = Runtime.of(parent.app)
    assert noted == [(runtime, "begins"), (runtime, "revoked")]


def test_a_task_that_is_no_kept_callback(
    noted: list[tuple[Runtime, object]], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is told of it; its app may be another one of this process, without a Stargate."""
    StartsStep(worker(stargate_callbacks="until_started"))
    happens(make_app(), {}, {})
    assert (noted, caplog.text) == ([], "")


def test_nobody_listens_where_callbacks_are_not_kept(
    noted: list[tuple[Runtime, object]],
) -> None:
    """Celery does more for each result where anybody does."""
    before = task_prerun.receivers, task_revoked.receivers
    StartsStep(worker())
    assert (task_prerun.receivers, task_revoked.receivers) == before
    happens(worker().app, *KEPT)
    assert noted == []
