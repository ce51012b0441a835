"""Task events of produce tasks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import states
from celery.exceptions import Ignore, Reject, Retry
from kombu.utils import json

from celery_stargate import Failure, Stargate
from celery_stargate.lanes.record import Ended, Record, Settled
from celery_stargate.model.outcome import Outcome
from celery_stargate.worker.events import TaskEvents, _in_order
from tests.unit.helpers import make_app, make_stargate, receipt

REQUEST: dict[str, Any] = {
    "argsrepr": "(<1 message for t>,)",
    "kwargsrepr": "{}",
    "root_id": "root",
    "parent_id": "parent",
    "retries": 0,
    "expires": None,
    "stargate_recorded_at": 90.5,
}


def sent(
    outcome: Outcome, request: dict[str, Any], ended: Ended | None = None, **options: Any
) -> list[tuple[str, Any]]:
    """Return the events of an outcome, at the time 100."""
    app = make_app()
    stargate = Stargate(app)
    task = stargate.task("shop.orders", **options)
    events: list[tuple[str, Any]] = []
    calls: list[Callable[[], None]] = []
    consumer = SimpleNamespace(
        event_dispatcher=SimpleNamespace(
            enabled=True,
            groups=set(),
            send=lambda kind, **fields: events.append((kind, fields)),
            flush=lambda **_: None,
            buffer_limit=24,
            on_send_buffered=None,
        ),
        call_soon=calls.append,
    )
    record = Record("c", task=task.name, request=json.dumps(request))
    TaskEvents(app, lambda: consumer, lambda: 100.0).done(Settled(record, (outcome,), ended=ended))
    # They are sent in the consumer's own thread, and in their order: kombu calls what it is to call
    # soon in any order.
    assert not events
    assert len(calls) <= 1
    for each in calls:
        each()
    return events


def test_of_a_call_that_was_recorded_in_its_lane() -> None:
    """All that Flower needs, dated when it was recorded."""
    received, started, succeeded = sent(receipt("c"), REQUEST)
    assert received[0] == "task-received"
    assert received[1] == {
        "uuid": "c",
        "name": "shop.orders",
        "args": "(<1 message for t>,)",
        "kwargs": "{}",
        "root_id": "root",
        "parent_id": "parent",
        "retries": 0,
        "eta": None,
        "expires": None,
        "timestamp": 90.5,
    }
    assert started == ("task-started", {"uuid": "c", "timestamp": 90.5})
    assert succeeded[0] == "task-succeeded"
    assert succeeded[1]["runtime"] == 9.5


def test_of_a_call_that_came_by_the_broker() -> None:
    """Celery's consumer has told that it came."""
    request = {name: value for name, value in REQUEST.items() if not name.startswith("stargate")}
    assert [kind for kind, _ in sent(receipt("c"), request)] == ["task-succeeded"]


def test_the_runtime_of_a_call_that_came_by_the_broker() -> None:
    """Since the worker put it into its lane."""
    request = {**REQUEST, "stargate_received_at": 97.5}
    del request["stargate_recorded_at"]
    [(_, fields)] = sent(receipt("c"), request)
    assert fields["runtime"] == 2.5


@pytest.mark.parametrize(
    ("outcome", "ended", "kind", "fields"),
    [
        (
            Failure(context="c", reason="no such topic", topic="t", code="http-404"),
            None,
            "task-failed",
            {"exception": "ProduceError('refused: no such topic (context c, t)')"},
        ),
        (
            Failure(context="c", reason="no such topic", topic="t", code="http-404"),
            Ended(states.RETRY, Retry(exc=ZeroDivisionError("x"))),
            "task-retried",
            {"exception": "ZeroDivisionError('x')"},
        ),
        (
            Failure(context="c", reason="late", code="deadline"),
            Ended(states.REVOKED, None),
            "task-revoked",
            {"expired": True},
        ),
        (
            receipt("c"),
            Ended(states.FAILURE, KeyError("shop.none")),
            "task-failed",
            {"exception": "KeyError('shop.none')"},
        ),
        (receipt("c"), Ended(states.REJECTED, Reject("x")), "task-rejected", {"requeue": False}),
        (receipt("c"), Ended(states.SUCCESS, None), "task-succeeded", {}),
        (receipt("c"), Ended(states.IGNORED, Ignore()), "task-started", {}),
    ],
)
def test_of_how_celery_ended_the_task(
    outcome: Outcome, ended: Ended | None, kind: str, fields: dict[str, Any]
) -> None:
    """A failure that is tried again, a stored message whose link cannot go out, and others."""
    *_, (last, found) = sent(outcome, REQUEST, ended)
    assert last == kind
    assert {name: found[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("code", "last", "expired"),
    [
        ("http-404", "task-failed", None),
        ("revoked", "task-revoked", False),
        ("expired", "task-revoked", True),
    ],
)
def test_of_a_failure(code: str, last: str, expired: bool | None) -> None:
    """What was never sent has not started."""
    events = sent(Failure(context="c", reason="no", code=code), REQUEST)
    kinds = [kind for kind, _ in events]
    assert kinds[-1] == last
    assert ("task-started" in kinds) is (last == "task-failed")
    assert events[-1][1].get("expired") is expired


def test_a_task_that_sends_none() -> None:
    """By its option `send_events`."""
    assert sent(receipt("c"), REQUEST, send_events=False) == []


def test_a_call_tells_when_it_was_recorded() -> None:
    """In its request, and only there."""
    _, lanes, task = make_stargate()
    task.delay("a")
    request = json.loads(lanes.puts[0].record.request or "")
    assert isinstance(request["stargate_recorded_at"], float)


class Consumer:
    """Celery's consumer, whose thread has not come to what it is asked for."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.asked: list[Callable[[], None]] = []
        self.call_soon = self.asked.append
        self.event_dispatcher = SimpleNamespace(
            enabled=True,
            groups=set(),
            send=lambda kind, uuid, **_: self.sent.append(f"{uuid} {kind}"),
            flush=lambda **_: None,
            buffer_limit=24,
            on_send_buffered=None,
        )


def test_many_are_sent_by_one_call_in_their_order() -> None:
    """Each call costs the consumer's loop, and they may come in any order."""
    app = make_app()
    task, consumer = Stargate(app).task("shop.orders"), Consumer()
    events = TaskEvents(app, lambda: consumer, lambda: 100.0)
    for context in ("a", "b", "c"):
        events.done(Settled(Record(context, task=task.name), (receipt(context),)))
    [send] = consumer.asked
    send()
    assert consumer.sent == [f"{each} task-succeeded" for each in ("a", "b", "c")]
    events.done(Settled(Record("d", task=task.name), (receipt("d"),)))
    assert len(consumer.asked) == 2


def test_many_leave_at_once_in_few_messages_to_the_broker() -> None:
    """A message costs as much as its events: Celery's dispatcher gathers more of ours than 24.

    What is left does not wait for the consumer's loop, which may poll for a second first.
    """
    app = make_app()
    task, consumer = Stargate(app).task("shop.orders"), Consumer()
    bodies: list[list[dict[str, Any]]] = []
    asked: list[None] = []
    producer: Any = SimpleNamespace(publish=lambda events, **_: bodies.append(list(events)))
    with app.connection_for_write() as connection:
        dispatcher: Any = app.events.Dispatcher(
            connection, buffer_group=["task"], on_send_buffered=lambda: asked.append(None)
        )
        dispatcher.producer = producer
        consumer.event_dispatcher = dispatcher
        events = TaskEvents(app, lambda: consumer, lambda: 100.0)
        for number in range(230):
            events.done(Settled(Record(f"c{number}", task=task.name), (receipt(f"c{number}"),)))
        consumer.asked[0]()
        assert [len(body) for body in bodies] == [100, 100, 30]
        # Older versions of Celery would send an empty message.
        assert not asked
        # Others gather as before.
        assert dispatcher.buffer_limit == 24
        dispatcher.send("task-sent")
        assert asked
    assert [each["uuid"] for body in bodies for each in body] == [f"c{n}" for n in range(230)]


def test_a_consumer_that_forgot_is_asked_again() -> None:
    """It forgets what it was asked for when it connects to the broker again."""
    now = [100.0]
    app = make_app()
    task, consumer = Stargate(app).task("shop.orders"), Consumer()
    events = TaskEvents(app, lambda: consumer, lambda: now[0])
    events.done(Settled(Record("a", task=task.name), (receipt("a"),)))
    consumer.asked.clear()
    now[0] += 2
    events.done(Settled(Record("b", task=task.name), (receipt("b"),)))
    [send] = consumer.asked
    send()
    assert consumer.sent == ["a task-succeeded", "b task-succeeded"]


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ({"topic": "t", "status": "stored", "x": 1}, ["status", "topic"]),
        ("text", None),
    ],
)
def test_what_people_look_for_first(result: Any, shown: list[str] | None) -> None:
    """Stands first in a receipt, of a list too; another result is shown as it is."""
    found, listed = _in_order(result), _in_order([result])
    assert found == result
    assert listed == [result]
    if shown is not None:
        assert [name for name in found if name in shown] != []
        assert list(found) == list(listed[0])
