"""Callbacks whose tasks the worker that publishes them does not know."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, chain, chord, group
from kombu.utils import json

from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.lanes.record import Record, Settled
from tests.unit.helpers import failure, make_app, receipt, sent_by_broker


@pytest.fixture
def app() -> Celery:
    """An app with a broker in memory, and one task."""
    made = make_app()

    @made.task(name="shop.known")
    def known(receipt: Any) -> None: ...

    return made


def calling(app: Celery, context: str, on_ack: Any = None, on_error: Any = None) -> Settled:
    """Return a settled context with callbacks."""
    record = Record(
        context,
        on_ack=freeze_callback("on_ack", on_ack, app),
        on_error=freeze_callback("on_error", on_error, app),
    )
    return Settled(record, (receipt(context),) if on_error is None else (failure(context),))


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the tasks that were warned of, in order of their names."""
    found = [each for each in caplog.records if "is not registered in this worker" in each.message]
    assert all("import its module (include=…)" in each.message for each in found)
    return sorted(str(vars(each)["task"]) for each in found)


def count_sent(app: Celery) -> int:
    """Return how many messages the broker has, and take them."""
    count = 0
    while sent_by_broker(app) is not None:
        count += 1
    return count


def test_a_worker_warns_once_of_each_task(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """Whether callbacks are published together or by themselves; all of them are published."""
    effects = Effects(app, None, "worker@host")
    gone, away, known = (app.signature(f"shop.{name}") for name in ("gone", "away", "known"))
    effects.run(calling(app, str(each), known) for each in range(3))
    effects.run([calling(app, "known", known)])
    assert warned(caplog) == []
    effects.run(calling(app, str(each), gone) for each in range(3))
    assert warned(caplog) == ["shop.gone"]
    effects.run([calling(app, "alone", on_error=away)])
    effects.run([calling(app, "again", gone), calling(app, "error", on_error=away)])
    assert warned(caplog) == ["shop.away", "shop.gone"]
    assert count_sent(app) == 10


def test_of_a_canvas_those_that_start_first(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """The owner publishes no others."""
    a, b, c, known = (app.signature(f"shop.{name}") for name in ("a", "b", "c", "known"))
    for context, canvas in (
        ("chain", chain(known, a, app=app)),
        ("group", group(known, b, app=app)),
        ("chord", chord([c, known], body=a, app=app)),
    ):
        Effects(app, None, "worker@host").run([calling(app, context, canvas)])
    assert warned(caplog) == ["shop.b", "shop.c"]


@pytest.mark.parametrize(
    "broken",
    [
        {"subtask_type": "group", "kwargs": {"tasks": [{"kwargs": {}}]}},
        {"subtask_type": "group", "kwargs": {"tasks": ["shop.paid"]}},
        {"subtask_type": "group", "kwargs": {"tasks": [{"task": {}, "kwargs": {}}]}},
    ],
)
def test_a_canvas_that_cannot_be_read(
    app: Celery, caplog: pytest.LogCaptureFixture, broken: dict[str, Any]
) -> None:
    """Is left to Celery, which tells what is wrong with it."""
    given = {"task": "celery.group", "args": [], "options": {}, "immutable": False, **broken}
    settled = Settled(Record("c", on_ack=json.dumps(given)), (receipt("c"),))
    Effects(app, None, "worker@host").run([settled])
    assert warned(caplog) == []
    assert "unregistered.py" not in caplog.text


def test_who_is_no_worker_is_not_warned(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """A caller need not import the tasks of its callbacks."""
    Effects(app, None).run([calling(app, "c", app.signature("shop.gone"))])
    assert warned(caplog) == []
    assert count_sent(app) == 1
