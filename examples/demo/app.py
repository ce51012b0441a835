"""The Celery project of the demo: what one would write oneself, and where it runs.

The environment says where Redis and Pulsar are, and under which names this run keeps apart from
whatever else is there.
"""

from __future__ import annotations

import os
from typing import Any

import redis
from celery import Celery
from celery_stargate import Stargate

PREFIX = os.environ.get("DEMO_PREFIX", "demo")
REDIS = os.environ.get("DEMO_REDIS", "redis://localhost")

#: For how long a lane belongs to a worker that gives no sign of life; the default is 10 s.
LEASE = 3.0
#: The orders' lanes: both workers have a share of them.
LANES = 4

#: The queue of the tasks.
TASKS = "tasks"

app = Celery("demo", broker=REDIS, backend=REDIS)
app.conf.update(
    stargate_url=os.environ.get("DEMO_PULSAR", "ws://localhost:8080"),
    stargate_topic=f"persistent://public/default/{PREFIX}",
    stargate_lanes=LANES,
    stargate_lease=LEASE,
    stargate_prefix=f"{PREFIX}:stargate",
    task_default_queue=TASKS,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"global_keyprefix": f"{PREFIX}:"},
    result_backend_transport_options={"global_keyprefix": f"{PREFIX}:"},
)
stargate = Stargate(app)

#: Redis hashes: how often each context triggered a callback.
PAID = f"{PREFIX}:paid"
FAILED = f"{PREFIX}:failed"


def notes() -> redis.Redis:
    """Return the client with which callbacks leave a note: the result backend's."""
    backend: Any = app.backend
    client: redis.Redis = backend.client
    return client


@app.task
def ready() -> bool:
    """Say that the worker runs tasks."""
    return True


@app.task
def build_message(order_id: str) -> dict[str, Any]:
    """Make an order's message; the first link of the chain."""
    return {"payload": order_id, "key": order_id, "properties": {"made-by": "build_message"}}


@app.task
def invoice(receipt: dict[str, Any]) -> str:
    """Go on after the receipt; the last link of the chain."""
    return f"invoiced at {receipt['ledger_id']}:{receipt['entry_id']}"


@app.task
def count(receipts: list[dict[str, Any]]) -> int:
    """Count receipts; the body of the chord."""
    return len(receipts)


@app.task(ignore_result=True)
def paid(receipt: dict[str, Any]) -> None:
    """Note that a receipt triggered ``on_ack``."""
    notes().hincrby(PAID, receipt["context"], 1)


@app.task(ignore_result=True)
def all_paid(receipts: list[dict[str, Any]]) -> None:
    """Note that a list's receipts triggered ``on_ack``; they share the list's context."""
    notes().hincrby(PAID, receipts[0]["context"], 1)


@app.task(ignore_result=True)
def failed(failure: dict[str, Any]) -> None:
    """Note that a failure triggered ``on_error``, and Pulsar's sentence."""
    notes().hset(FAILED, failure["context"], failure["reason"])
