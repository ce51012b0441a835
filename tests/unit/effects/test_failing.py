"""Effects that can never succeed, beside a task that does nothing and has the same canvas.

What Celery tells for a mistake in an ordinary task, a produce task tells, too: the same state, the
same exception, the same tasks published.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery, Task, chain, chord, signals
from celery.app.trace import build_tracer
from celery.exceptions import Ignore, Reject, Retry
from kombu.exceptions import OperationalError
from kombu.utils import json

from celery_stargate import ProduceTask, Stargate
from celery_stargate.effects.run import Effects
from celery_stargate.effects.tracer import run
from celery_stargate.lanes.record import Settled
from celery_stargate.model.outcome import error_of
from tests.unit.helpers import NotedLanes, failure, make_app, receipt

pytestmark = [
    pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning"),
]

Call = Callable[[Celery, Any, str], None]


def calling(**links: Callable[[Celery], Any]) -> Call:
    """Call a task with links."""

    def call(app: Celery, task: Any, task_id: str) -> None:
        made = {name: make(app) for name, make in links.items()}
        task.apply_async(("message",), task_id=task_id, **made)

    return call


def failed(app: Celery) -> Any:
    """An errback that can be published."""
    return app.tasks["shop.failed"].si(1)


def without_parameters(app: Celery) -> Any:
    """A task that takes nothing, and gets the result."""
    return app.tasks["shop.done"].s()


def to_no_queue(app: Celery) -> Any:
    """A task for a queue that does not exist."""
    return app.tasks["shop.ship"].s().set(queue="missing")


def unserializable(app: Celery) -> Any:
    """A task whose arguments no serializer takes."""
    return app.tasks["shop.ship"].s().set(serializer="missing")


def in_chain(after: Callable[[Celery], Any]) -> Call:
    """Call a task with another one after it, and an errback."""

    def call(app: Celery, task: Any, task_id: str) -> None:
        first = task.s("message").set(task_id=task_id, link_error=[failed(app)])
        chain(first, after(app)).apply_async()

    return call


def in_chord(body: Callable[[Celery], Any]) -> Call:
    """Call a task as the only one of a chord's header."""

    def call(app: Celery, task: Any, task_id: str) -> None:
        header = [task.s("message").set(task_id=task_id), task.s("other")]
        chord(header, body(app).set(task_id=f"{task_id}.body")).apply_async()

    return call


def raising(name: str, error: Callable[[], Exception]) -> type:
    """Make a class whose hook raises."""

    def hook(*args: Any) -> None:
        raise error()

    return type(f"Raising_{name}", (), {name: hook})


class Plain:
    """A task without hooks."""


@dataclass(frozen=True)
class Shape:
    """A canvas with a mistake in it."""

    call: Call = field(default_factory=lambda: calling(link_error=failed))
    #: Whether the task's own work fails.
    fails: bool = False
    #: Further base class of the task.
    base: type = Plain
    #: A signal whose receiver raises.
    signal: str | None = None


def _value_error() -> Exception:
    return ValueError("by a hook")


LINKS = {
    "no parameters": without_parameters,
    "no queue": to_no_queue,
    "no serializer": unserializable,
}
HOOKS = ("before_start", "on_success", "after_return")
ERRORS: dict[str, Callable[[], Exception]] = {
    "ValueError": _value_error,
    "Retry": lambda: Retry("again", ValueError("why")),
    "Reject": lambda: Reject("no"),
    "Ignore": Ignore,
}
SHAPES: dict[str, Shape] = {
    **{f"link, {n}": Shape(calling(link=m, link_error=failed)) for n, m in LINKS.items()},
    **{f"next step, {n}": Shape(in_chain(m)) for n, m in LINKS.items()},
    **{f"link_error, {n}": Shape(calling(link_error=m), fails=True) for n, m in LINKS.items()},
    **{f"chord body, {n}": Shape(in_chord(m)) for n, m in LINKS.items()},
    **{
        f"{hook} raises {name}": Shape(base=raising(hook, error))
        for hook in HOOKS
        for name, error in ERRORS.items()
        # This one the worker's request ends, and no tracer: see test_exits.py.
        if (hook, name) != ("before_start", "Reject")
    },
    **{
        f"{hook} raises {name} after a failure": Shape(base=raising(hook, error), fails=True)
        for hook in ("on_failure", "after_return")
        for name, error in ERRORS.items()
    },
    **{
        f"{signal}'s receiver raises": Shape(signal=signal)
        for signal in ("task_prerun", "task_success", "task_postrun")
    },
    "task_failure's receiver raises": Shape(signal="task_failure", fails=True),
}


@pytest.fixture
def app() -> Celery:
    """An app with the tasks that links name."""
    app = make_app(task_create_missing_queues=False)

    @app.task(name="shop.done", shared=False)
    def done() -> None: ...

    @app.task(name="shop.ship", shared=False)
    def ship(result: Any) -> None: ...

    @app.task(name="shop.failed", shared=False)
    def failed(number: int) -> None: ...

    return app


@contextmanager
def receiver_raises(name: str | None) -> Iterator[None]:
    """Connect a receiver that raises."""

    def receive(**_: Any) -> None:
        raise ValueError("by a receiver")

    if name is None:
        yield
        return
    signal = getattr(signals, name)
    signal.connect(receive, weak=False)
    try:
        yield
    finally:
        signal.disconnect(receive)


def messages(app: Celery) -> list[tuple[dict[str, Any], Any]]:
    """Take all messages out of the app's queue: headers and body."""
    found = []
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        queue = app.conf.task_default_queue
        channel.queue_declare(queue)
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            found.append((message.headers, json.loads(message.body)))
    return found


def told(app: Celery, task_id: str) -> dict[str, Any]:
    """Return what can be seen of a task's end."""
    ended = {
        each: (app.AsyncResult(name).state, type(app.AsyncResult(name).result).__name__)
        for each, name in (("task", task_id), ("body", f"{task_id}.body"))
    }
    return {**ended, "published": sorted(each["task"] for each, _ in messages(app))}


def of_an_ordinary_task(app: Celery, shape: Shape) -> dict[str, Any]:
    """Let Celery do a task that does nothing."""
    task_id = uuid.uuid4().hex

    def work(self: Any, message: Any) -> Any:
        if shape.fails:
            raise error_of(failure(task_id))
        return receipt(task_id).to_dict()

    base = type("Ordinary", (shape.base, Task), {"abstract": True})
    make: Any = app.task(name=f"shop.ordinary-{task_id}", bind=True, base=base, shared=False)
    task = make(work)
    shape.call(app, task, task_id)
    for headers, (args, kwargs, embed) in messages(app):
        request = {**headers, **embed, "delivery_info": {"priority": None}}
        tracer = build_tracer(task.name, task, app=app)
        # What leaves the tracer is the worker's, which logs it.
        with suppress(Exception):
            tracer(headers["id"], args, kwargs, request)
    return told(app, task_id)


def of_a_produce_task(app: Celery, shape: Shape) -> dict[str, Any]:
    """Do the effects of a produce task."""
    task_id = uuid.uuid4().hex
    base = type("Own", (shape.base, ProduceTask), {"abstract": True})
    make: Any = app.task(name=f"shop.own-{task_id}", bind=True, base=base, shared=False)
    task = make(run)
    lanes = NotedLanes()
    stargate = Stargate(app)
    stargate.runtime.__dict__["outbox"] = lanes
    shape.call(app, task, task_id)
    outcome: Any = failure if shape.fails else receipt
    settled = [Settled(put.record, (outcome(put.record.context),)) for put in lanes.puts]
    effects = Effects(app, None)
    assert effects.run(settled) == [each.record.context for each in settled]
    return told(app, task_id)


@pytest.mark.parametrize("name", SHAPES)
def test_a_mistake_is_told_as_for_any_task(app: Celery, name: str) -> None:
    """In the same way, at once, and once."""
    shape = SHAPES[name]
    with receiver_raises(shape.signal):
        expected = of_an_ordinary_task(app, shape)
        found = of_a_produce_task(app, shape)
    assert found == expected


def settled_of(app: Celery, *outcomes: Any, **callbacks: Any) -> tuple[Settled, NotedLanes]:
    """Call the produce task, and return the context with an outcome."""
    lanes = NotedLanes()
    Stargate(app).runtime.__dict__["outbox"] = lanes
    link_error = callbacks.pop("link_error", None)
    app.tasks[ProduceTask.default_name].apply_async(("message",), callbacks, link_error=link_error)
    record = lanes.puts[0].record
    return Settled(record, outcomes or (receipt(record.context),)), lanes


@pytest.mark.parametrize("name", LINKS)
def test_on_ack_that_cannot_be_published(
    app: Celery, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The task fails as by a link; `on_error` says that the message is stored."""
    on_ack = LINKS[name](app)
    settled, _ = settled_of(
        app, on_ack=on_ack, on_error=app.signature("shop.cry"), link_error=failed(app)
    )
    context = settled.record.context
    assert Effects(app, None).run([settled]) == [context]
    with suppress(Exception):
        on_ack.apply_async((1,))
    found = app.AsyncResult(context)
    assert found.state == "FAILURE"
    sent = {headers["task"]: body[0] for headers, body in messages(app)}
    assert sent.keys() == {"shop.cry", "shop.failed"}
    told = sent["shop.cry"][0]
    assert told["code"] == type(found.result).__name__
    assert "the message is stored" in told["reason"]
    assert told["outcomes"] == [receipt(context).to_dict()]
    assert f"cannot publish callbacks; this is not repeated context={context}" in caplog.text


def test_on_error_is_triggered_where_a_link_cannot_be_published(app: Celery) -> None:
    """Once."""
    lanes = NotedLanes()
    Stargate(app).runtime.__dict__["outbox"] = lanes
    app.tasks[ProduceTask.default_name].apply_async(
        ("message",), {"on_error": app.signature("shop.cry")}, link=without_parameters(app)
    )
    record = lanes.puts[0].record
    effects = Effects(app, None)
    assert effects.run([Settled(record, (receipt(record.context),))]) == [record.context]
    [(headers, body)] = messages(app)
    assert headers["task"] == "shop.cry"
    assert body[0][0]["code"] == "TypeError"


@pytest.mark.filterwarnings("error:Exception raised outside body:RuntimeWarning")
def test_what_leaves_celerys_tracer(app: Celery) -> None:
    """Warnings may be errors: the failure is stored all the same."""
    settled, _ = settled_of(app)
    lanes = NotedLanes()
    Stargate(app).runtime.__dict__["outbox"] = lanes
    app.tasks[ProduceTask.default_name].apply_async(("x",), link=without_parameters(app))
    record = lanes.puts[0].record
    assert Effects(app, None).run([Settled(record, settled.outcomes)]) == [record.context]
    assert app.AsyncResult(record.context).state == "FAILURE"


def test_on_error_that_cannot_be_published(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the context ends with its failure."""
    settled, _ = settled_of(app, failure(), on_error=without_parameters(app))
    context = settled.record.context
    assert Effects(app, None).run([settled]) == [context]
    assert app.AsyncResult(context).state == "FAILURE"
    assert f"cannot publish callbacks; this is not repeated context={context}" in caplog.text


def test_one_bad_context_costs_the_others_nothing(app: Celery) -> None:
    """Neither is a breaker opened by it."""
    bad, _ = settled_of(app, on_ack=without_parameters(app))
    good = [settled_of(app, on_ack=app.signature("shop.ship"))[0] for _ in range(2)]
    given = [bad, *good]
    assert Effects(app, None).run(given) == [each.record.context for each in given]
    assert [headers["task"] for headers, _ in messages(app)] == ["shop.ship"] * 2
    assert {app.AsyncResult(each.record.context).state for each in good} == {"SUCCESS"}


def test_waiting_callers_come_before_what_is_away(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The result is stored, too; the broker is tried once, and logged once."""
    tried: list[object] = []

    def away(*args: Any, **_: Any) -> None:
        tried.append(args)
        raise OperationalError("the broker is away")

    monkeypatch.setattr("celery_stargate.effects.callback_stage.trigger", away)
    monkeypatch.setattr(
        "celery_stargate.effects.callback_stage.trigger_together", lambda *_, **__: set()
    )
    lanes = NotedLanes()
    given = []
    for number in range(3):
        settled, _ = settled_of(app, on_ack=app.signature("shop.ship"))
        record = type(settled.record)(
            **{each: getattr(settled.record, each) for each in ("context", "task", "request")},
            on_ack=settled.record.on_ack,
            inbox=f"i/{number}",
        )
        given.append(Settled(record, settled.outcomes))
    with caplog.at_level(logging.WARNING):
        assert Effects(app, lanes).run(given) == []  # type: ignore[arg-type]
    assert [address for address, _ in lanes.told] == ["i/0", "i/1", "i/2"]
    assert {app.AsyncResult(each.record.context).state for each in given} == {"SUCCESS"}
    assert len(tried) == 1
    assert caplog.text.count("Celery's broker is away") == 1
