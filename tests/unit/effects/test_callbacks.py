"""Trigger: one callback or many, which are surely published, and under which ids."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, _state, chain, current_app, group, signals
from celery.utils.saferepr import saferepr
from kombu.exceptions import OperationalError

from celery_stargate.effects.callbacks import callback_id, trigger, trigger_together
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import freeze_callback
from celery_stargate.effects.tracer import acting_as, no_subscription
from celery_stargate.lanes.record import Record, Settled
from tests.unit.helpers import failure, make_app, receipt, sent_by_broker


@pytest.fixture
def app() -> Celery:
    """An app with a broker in memory."""
    return make_app()


def calling(app: Celery, context: str, on_ack: Any = None, on_error: Any = None) -> Settled:
    """Return a settled context with callbacks."""
    record = Record(
        context,
        on_ack=freeze_callback("on_ack", on_ack, app),
        on_error=freeze_callback("on_error", on_error, app),
    )
    return Settled(record, (receipt(context),))


def trigger_one(app: Celery, settled: Settled) -> None:
    """Publish the callback that a context's outcome calls for."""
    trigger(app, settled.call, settled.callback)


def failed(settled: Settled) -> Settled:
    """Return the context with a failure in the place of its receipt."""
    return Settled(settled.record, (failure(settled.record.context),))


@pytest.fixture(autouse=True)
def published() -> Iterator[list[dict[str, Any]]]:
    """Note the headers of what is published.

    Before an app's first message: Celery looks then for who wants to hear of any.
    """
    found: list[dict[str, Any]] = []

    def note(headers: dict[str, Any], **_: Any) -> None:
        found.append(headers)

    signals.before_task_publish.connect(note)
    yield found
    signals.before_task_publish.disconnect(note)


def test_ids() -> None:
    """Differ by context and by option, and stay for ever: other processes count on them."""
    ids = {
        callback_id(context, "", option) for context in "ab" for option in ("on_ack", "on_error")
    }
    assert len(ids) == 4
    assert callback_id("c", "", "on_ack") == "708bcde5-20fb-5351-b198-54224e13de12"
    assert callback_id("c", "1", "on_ack") != callback_id("c", "2", "on_ack")
    assert uuid.UUID(callback_id("c", "", "on_ack")).version == 5


def test_one(app: Celery, published: list[dict[str, Any]]) -> None:
    """The one that the outcome calls for, with the outcome first; none where there is none."""
    settled = calling(app, "c", app.signature("yes", args=(1,)), app.signature("no"))
    trigger_one(app, settled)
    trigger_one(app, failed(settled))
    trigger_one(app, calling(app, "c", on_error=app.signature("no")))
    trigger_one(app, Settled(Record("c"), (receipt("c"),)))
    assert [(each["task"], each["id"]) for each in published] == [
        ("yes", callback_id("c", "", "on_ack")),
        ("no", callback_id("c", "", "on_error")),
    ]
    assert sent_by_broker(app)[0] == [settled.result, 1]
    assert sent_by_broker(app)[0] == [failed(settled).failure.to_dict()]


def test_an_id_that_the_caller_gave(app: Celery, published: list[dict[str, Any]]) -> None:
    """Stays."""
    trigger_one(app, calling(app, "c", app.signature("x", options={"task_id": "mine"})))
    assert [each["id"] for each in published] == ["mine"]


def test_many(app: Celery, published: list[dict[str, Any]]) -> None:
    """All by one producer, in order, and all of them are surely published."""
    given = [calling(app, context, app.signature(context)) for context in "abc"]
    other = Settled(Record("none"), (receipt("none"),))
    assert trigger_together(app, [*given, other, failed(given[0])]) == {"a", "b", "c"}
    expected = [callback_id(context, "", "on_ack") for context in "abc"]
    assert [each["id"] for each in published] == expected
    assert [sent_by_broker(app)[0][0]["context"] for _ in "abc"] == [*"abc"]


def test_calls_with_one_context(app: Celery, published: list[dict[str, Any]]) -> None:
    """Each of them gets its own callback, beside others that are published together."""
    on_ack = freeze_callback("on_ack", app.signature("x"), app)
    given = [
        Settled(Record(context, on_ack=on_ack, incarnation=incarnation), (receipt(context),), first)
        for first, (context, incarnation) in enumerate([("c", "a"), ("c", "b"), ("d", "")], 1)
    ]
    assert Effects(app, None).run(given) == ["c", "c", "d"]
    expected = {callback_id(*each, "on_ack") for each in [("c", "a"), ("c", "b"), ("d", "")]}
    assert sorted(each["id"] for each in published) == sorted(expected)


def test_one_that_cannot_be_published(app: Celery) -> None:
    """Does not hold up the others; what was wrong is told when it is tried by itself."""
    app.conf.task_create_missing_queues = False
    bad = calling(app, "bad", app.signature("x", options={"queue": "nowhere"}))
    given = [calling(app, "a", app.signature("a")), bad, calling(app, "b", app.signature("b"))]
    assert trigger_together(app, given) == {"a", "b"}
    with pytest.raises(Exception, match="nowhere"):
        trigger_one(app, bad)


@pytest.mark.parametrize("made", [group, chain])
def test_a_canvas_goes_by_itself(app: Celery, made: Any, published: list[dict[str, Any]]) -> None:
    """It may need a producer of its own, and could wait for that for ever."""
    canvas = calling(app, "c", made([app.signature("a"), app.signature("b")]))
    assert trigger_together(app, [canvas, calling(app, "d", app.signature("d"))]) == {"d"}
    assert [each["task"] for each in published] == ["d"]
    trigger_one(app, canvas)
    assert published[1]["task"] == "a"
    assert published[1]["id"] != callback_id("c", "", "on_ack")


def test_a_pool_of_one_producer(app: Celery) -> None:
    """It is not held: a task that publishes another by the way would wait for it."""
    app.conf.broker_pool_limit = 1
    given = [calling(app, context, app.signature(context)) for context in "ab"]
    assert trigger_together(app, given) == set()
    trigger_one(app, given[0])
    assert sent_by_broker(app)[0] == [given[0].result]
    assert sent_by_broker(app) is None


def test_one_alone(app: Celery) -> None:
    """Goes the general way: it would gain nothing by a batch, and that is not tried again."""
    assert trigger_together(app, [calling(app, "c", app.signature("x"))]) == set()
    assert sent_by_broker(app) is None


def test_a_broker_that_is_away(
    app: Celery, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is surely published, and the broker is asked once, not once for each."""
    asked: list[object] = []

    def away(sender: object, **_: Any) -> None:
        asked.append(sender)
        raise OperationalError("away")

    given = [calling(app, context, app.signature(context)) for context in "abc"]
    # A receiver's error would be caught; what the broker raises is not.
    monkeypatch.setattr(signals.before_task_publish, "send", away)
    assert trigger_together(app, given) == set()
    assert asked == ["a"]
    assert "3 callbacks are published one by one" in caplog.text


def test_what_events_and_logs_show_of_the_arguments(
    app: Celery, published: list[dict[str, Any]]
) -> None:
    """What they show of any task's."""

    def shown(settled: Settled) -> Any:
        trigger_one(app, settled)
        return published[-1]["argsrepr"]

    settled = calling(app, "c", app.signature("x"))
    assert shown(settled) == saferepr((settled.result,))
    listed = Settled(Record("c", is_list=True, on_ack=settled.record.on_ack), settled.outcomes * 50)
    assert len(shown(listed)) < 1100
    valued = Settled(settled.record, (receipt("c", value="v" * 5000),))
    assert len(shown(valued)) < 1100
    long = calling(app, "c", app.signature("x", args=("a" * 5000,)))
    assert len(shown(long)) < 1100
    assert shown(calling(app, "c", app.signature("x", immutable=True))) == "()"
    options = {"argsrepr": "(…)"}
    assert shown(calling(app, "c", app.signature("x", options=options))) == "(…)"
    worst = failed(calling(app, "c", on_error=app.signature("x")))
    assert shown(worst) == saferepr((worst.failure.to_dict(),))
    for kwargs in ({}, {"a": "b" * 5000}):
        trigger_one(app, calling(app, "c", app.signature("x", kwargs=kwargs)))
        assert published[-1]["kwargsrepr"] == saferepr(kwargs, 1024)
    trigger_one(app, calling(app, "c", app.signature("x", options={"kwargsrepr": "…"})))
    assert published[-1]["kwargsrepr"] == "…"


def test_acting_as_leaves_the_backend_as_it_was() -> None:
    """A hook of somebody else's comes back, such as ours for calls into lanes."""
    app = make_app(result_backend="redis://redis.invalid:6379/0")
    backend: Any = app.backend
    with acting_as(app):
        assert backend.on_task_call is no_subscription
    assert "on_task_call" not in vars(backend)
    backend.on_task_call = own = lambda producer, task_id: None
    with acting_as(app):
        assert backend.on_task_call is no_subscription
    assert backend.on_task_call is own


def test_acting_as_an_app(app: Celery) -> None:
    """For a while; then the one before is the thread's current app again."""
    before = _state.get_current_app()
    with pytest.raises(ValueError, match="x"), acting_as(app):
        assert current_app.main == app.main
        raise ValueError("x")
    assert _state.get_current_app() is before
