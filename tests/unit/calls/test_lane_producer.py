"""What Celery asks of the producer by which a task's message goes into its lane."""

from __future__ import annotations

import json
from typing import Any

from kombu import Exchange, Queue

from celery_stargate import ProduceError
from celery_stargate.effects.tracer import CALL
from tests.unit.helpers import make_stargate


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


def test_a_priority_is_kept() -> None:
    """For what goes on from the receipt (``task_inherit_parent_priority``)."""
    _, lanes, task = make_stargate()
    task.apply_async(("a",), priority=7)
    assert json.loads(lanes.puts[0].record.request or "")["delivery_info"]["priority"] == 7
