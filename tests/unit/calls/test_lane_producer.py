"""What Celery asks of the producer by which a task's message goes into its lane."""

from __future__ import annotations

import json

from kombu import Exchange, Queue

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


def test_a_priority_is_kept() -> None:
    """For what goes on from the receipt (``task_inherit_parent_priority``)."""
    _, lanes, task = make_stargate()
    task.apply_async(("a",), priority=7)
    assert json.loads(lanes.puts[0].record.request or "")["delivery_info"]["priority"] == 7
