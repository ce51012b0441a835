"""`inspect active`, `reserved` and `query_task` show the produce tasks of a worker's lanes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from celery import Celery
from celery.worker import state as worker_state

from celery_stargate import Acknowledger, ProduceError, ProduceTask, Stargate
from celery_stargate.calls.arguments import Arguments
from celery_stargate.effects.signatures import pack
from celery_stargate.model.context import attempt_context
from celery_stargate.testing import LocalPulsar
from celery_stargate.worker import inspecting
from celery_stargate.worker.revoking import ControlStep
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for


def handlers_of(app: Celery) -> tuple[Any, Any]:
    """Return a worker's handlers of remote control, and the state they get."""
    consumer = SimpleNamespace(app=app, hostname="it@here", steps=[])
    state = SimpleNamespace(app=app, consumer=consumer, tset=set)
    return ControlStep(consumer).handlers(), state


def test_what_waits_is_shown(make_app: MakeApp, local: LocalPulsar, monkeypatch: Any) -> None:
    """Sent: active; not sent: reserved; never a payload; and not more than a bound."""
    app = make_app(local.url, max_in_flight=1)
    task = app.tasks[ProduceTask.default_name]
    handlers, state = handlers_of(app)
    worker_state.reset_state()
    with Acknowledger(app):
        local.faults.hold_receipts()
        first = task.delay("secret")
        wait_for(lambda: handlers["active"](state))
        rest = [task.delay("secret") for _ in range(4)]
        [active] = handlers["dump_active"](state)
        reserved = handlers["reserved"](state)
        assert (active["id"], active["type"]) == (first.id, task.name)
        assert {each["id"] for each in reserved} == {each.id for each in rest}
        found = handlers["query_task"](state, [first.id, rest[0].id, "unknown"])
        assert {key: kind for key, (kind, _) in found.items()} == {
            first.id: "active",
            rest[0].id: "reserved",
        }
        assert "secret" not in json.dumps([active, reserved, found])
        monkeypatch.setattr(inspecting, "_LIMIT", 2)
        assert len(handlers["reserved"](state)) <= 2
        local.faults.release_receipts()
        rest[-1].get(timeout=20)
        assert handlers["active"](state) == handlers["reserved"](state) == []


def test_a_later_attempt(make_app: MakeApp, local: LocalPulsar) -> None:
    """Of a task that is retried: it waits under another name, and is shown under the task's id."""
    app = make_app(local.url)
    stargate = Stargate.of(app)
    retried: dict[str, Any] = {"autoretry_for": (ProduceError,), "max_retries": 2}
    task = stargate.task("shop.orders", **retried)
    call, asked = task.checked(stargate.runtime, Arguments("x"), attempt_context("seventeen", 2))
    request = pack("the task's request", {"id": "seventeen", "retries": 2})
    record = call.record(asked.callbacks, task=task.name, request=request)
    handlers, state = handlers_of(app)
    local.faults.hold_receipts()
    with Acknowledger(app):
        stargate.runtime.recorder.put(call, record, timeout=60)
        [shown] = wait_for(lambda: handlers["active"](state))
        assert shown["id"] == "seventeen"
        assert list(handlers["query_task"](state, ["seventeen"])) == ["seventeen"]
        local.faults.release_receipts()


def test_without_ownership(make_app: MakeApp, local: LocalPulsar) -> None:
    """A worker shows its own lanes."""
    app = make_app(local.url)
    app.tasks[ProduceTask.default_name].delay("a")
    handlers, state = handlers_of(app)
    assert handlers["reserved"](state) == []
