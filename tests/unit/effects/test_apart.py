"""``effects/apart.py``: a caller's thread waits for no broker."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from celery import Celery

from celery_stargate.effects import apart as apart_module
from celery_stargate.effects.apart import EffectsApart
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, Settled
from tests.threads import no_new_threads
from tests.unit.helpers import TOPIC, NotedLanes, make_app, receipt

LANE = Lane(TOPIC)


def calling(app: Celery, context: str) -> Settled:
    """Return a context with a waiting caller and a callback."""
    on_ack = freeze_callback("on_ack", app.signature("shop.ship"), app)
    return Settled(Record(context, on_ack=on_ack, inbox="i/1"), (receipt(context),))


def test_all_effects_are_done() -> None:
    """And the contexts are finished."""
    app, lanes = make_app(), NotedLanes()
    effects: Any = Effects(app, lanes)  # type: ignore[arg-type]
    EffectsApart(effects, lanes).run(LANE, [calling(app, "a")])  # type: ignore[arg-type]
    assert lanes.finished == [("a", 0)]
    assert [address for address, _ in lanes.told] == ["i/1"]


def test_a_broker_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is notified and goes on; the context is finished when the broker answers."""
    app, lanes = make_app(), NotedLanes()
    began, answers, finished = threading.Event(), threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        began.set()
        assert answers.wait(20)

    def finish(lane: Lane, done: Any) -> None:
        lanes.finished += [each.identity for each in done]
        finished.set()

    monkeypatch.setattr("celery_stargate.effects.callback_stage.trigger", hang)
    monkeypatch.setattr(apart_module, "STUCK_AFTER", 0.05)
    monkeypatch.setattr(lanes, "finish", finish)
    now = 0.0
    effects = Effects(app, lanes, monotonic=lambda: now)  # type: ignore[arg-type]
    apart = EffectsApart(effects, lanes)  # type: ignore[arg-type]
    apart.run(LANE, [calling(app, "a")])
    assert began.wait(20)
    assert len(lanes.told) == 1
    assert lanes.finished == []
    now = 10.0
    apart.run(LANE, [calling(app, "b")])
    assert len(lanes.told) == 2, "who waits is notified all the same"
    answers.set()
    assert finished.wait(20)
    assert lanes.finished == [("a", 0)]


def test_a_thread_that_cannot_be_started(caplog: pytest.LogCaptureFixture) -> None:
    """The caller is notified, the lane's owner does the rest, and the next ones are done here."""
    app, lanes = make_app(), NotedLanes()
    effects: Any = Effects(app, lanes)  # type: ignore[arg-type]
    apart = EffectsApart(effects, lanes)  # type: ignore[arg-type]
    with no_new_threads("stargate-effects"):
        apart.run(LANE, [calling(app, "a")])
    assert [address for address, _ in lanes.told] == ["i/1"]
    assert lanes.finished == []
    assert "effects of 1 contexts are done later: can't start new thread" in caplog.text
    apart.run(LANE, [calling(app, "b")])
    assert lanes.finished == [("b", 0)]
