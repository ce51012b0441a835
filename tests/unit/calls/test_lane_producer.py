"""What Celery asks of the producer by which a task's message goes into its lane."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import Task, signals
from kombu import Exchange, Queue

from celery_stargate import ConfigurationError, InvalidMessage, ProduceError, Stargate
from celery_stargate.effects.tracer import CALL
from tests.unit.helpers import NotedLanes, make_app, make_stargate


def test_a_sent_event_goes_by_the_broker() -> None:
    """Only the task's own message goes into the lane."""
    _, lanes, task = make_stargate(task_send_sent_event=True)
    events = Queue(
        "sent", Exchange("celeryev", type="topic"), routing_key="task.#", auto_delete=True
    )
    with task.app.connection_for_write() as connection:
        bound = events(connection.default_channel)
        bound.declare()
        result = task.delay("a")
        assert len(lanes.puts) == 1
        event = bound.get()
        assert event is not None
        assert (event.payload["type"], event.payload["uuid"]) == ("task-sent", result.id)
        bound.delete()


def test_an_rpc_backend_has_its_channel() -> None:
    """It declares its queue by the producer that it is given."""
    _, lanes, task = make_stargate(result_backend="rpc://")
    result = task.delay("a")
    request = json.loads(lanes.puts[0].record.request or "")
    assert request["reply_to"] == task.app.thread_oid
    assert request["correlation_id"] == result.id


def test_one_producer_of_the_broker_for_all_that_a_call_needs() -> None:
    """A channel for the backend's queue, and an event; it is given back afterwards."""
    _, _, task = make_stargate(
        result_backend="rpc://", task_send_sent_event=True, broker_pool_limit=1
    )
    for _ in range(3):
        task.delay("a")


def test_a_task_that_is_retried_has_its_arguments() -> None:
    """A retry is a new message by Celery's broker, whoever holds the lane."""
    stargate, lanes, _ = make_stargate()
    retried: dict[str, Any] = {"autoretry_for": (ProduceError,), "max_retries": 3}
    task = stargate.task("shop.orders", **retried)
    task.apply_async(("a",), {"on_error": stargate.app.signature("shop.sorry")})
    args, kwargs = json.loads(lanes.puts[0].record.request or "")[CALL]
    assert args == ["a"]
    assert kwargs["on_error"]["task"] == "shop.sorry"


@pytest.mark.parametrize("hook", ["before_start", "on_success", "on_failure", "after_return"])
def test_a_task_with_hooks_has_its_arguments(hook: str) -> None:
    """They get what the call was given, as with Celery."""

    class Audited(Task):  # type: ignore[type-arg]
        abstract = True

    setattr(Audited, hook, lambda self, *args: None)
    app: Any = make_app()
    app.task_cls = Audited
    stargate, lanes = Stargate(app), NotedLanes()
    stargate.runtime.outbox = lanes  # type: ignore[assignment]
    stargate.task("shop.orders").delay("a", topic="other")
    args, kwargs = json.loads(lanes.puts[0].record.request or "")[CALL]
    assert (args, kwargs) == (["a"], {"topic": "other"})


def test_arguments_that_a_receiver_changed() -> None:
    """A lane has taken them by then; the caller is told."""
    _, lanes, task = make_stargate()

    def change(body: Any, **_: Any) -> None:
        body[1]["topic"] = "persistent://public/default/changed"

    def look(body: Any, headers: Any, **_: Any) -> None:
        headers["seen"] = body[0][0]

    signals.before_task_publish.connect(look)
    try:
        task.delay("a")
        signals.before_task_publish.connect(change)
        with pytest.raises(InvalidMessage, match="before_task_publish"):
            task.delay("a", topic="orders")
        task.delay("a", via="broker")
    finally:
        signals.before_task_publish.disconnect(look)
        signals.before_task_publish.disconnect(change)
    assert len(lanes.puts) == 1


def test_celerys_old_messages() -> None:
    """A lane's record is made of headers, which they have not."""
    _, lanes, task = make_stargate(task_protocol=1)
    with pytest.raises(ConfigurationError, match="task_protocol is 1"):
        task.delay("a")
    task.delay("a", via="broker")
    assert lanes.puts == []


def test_a_priority_is_kept() -> None:
    """For what goes on from the receipt (``task_inherit_parent_priority``)."""
    _, lanes, task = make_stargate()
    task.apply_async(("a",), priority=7)
    assert json.loads(lanes.puts[0].record.request or "")["delivery_info"]["priority"] == 7
