"""The Celery project of the demo, as you would write it.

The environment says where Redis and Pulsar are, and which prefix keeps this run apart from
everything else there.
"""

from __future__ import annotations

import os
from typing import Any

import redis
from celery import Celery
from celery_stargate import Stargate

PREFIX = os.environ.get("DEMO_PREFIX", "demo")
REDIS = os.environ.get("DEMO_REDIS", "redis://localhost")

#: Seconds until the lanes of a killed worker are free; the default is 10.
LEASE = 3.0
#: How many lanes the topic has; both workers own some of them.
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

#: Redis hashes: how often each context triggered its callback.
PAID = f"{PREFIX}:paid"
FAILED = f"{PREFIX}:failed"


def notes() -> redis.Redis:
    """Return the Redis client that callbacks use for notes: the result backend's."""
    backend: Any = app.backend
    client: redis.Redis = backend.client
    return client


@app.task
def ready() -> bool:
    """Show that the worker runs tasks."""
    return True


@app.task
def build_message(order_id: str) -> dict[str, Any]:
    """Make the message of an order: the first task of the chain."""
    return {"payload": order_id, "key": order_id, "properties": {"made-by": "build_message"}}


@app.task
def invoice(receipt: dict[str, Any]) -> str:
    """Go on after the receipt: the last task of the chain."""
    return f"invoiced at {receipt['ledger_id']}:{receipt['entry_id']}"


@app.task
def count(receipts: list[dict[str, Any]]) -> int:
    """Count receipts: the body of the chord."""
    return len(receipts)


@app.task(ignore_result=True)
def paid(receipt: dict[str, Any]) -> None:
    """Note that the receipt of a message triggered ``on_ack``."""
    notes().hincrby(PAID, receipt["context"], 1)


@app.task(ignore_result=True)
def all_paid(receipts: list[dict[str, Any]]) -> None:
    """Note that the receipts of a list triggered ``on_ack``; all have the list's context."""
    notes().hincrby(PAID, receipts[0]["context"], 1)


@app.task(ignore_result=True)
def failed(failure: dict[str, Any]) -> None:
    """Note that a failure triggered ``on_error``, with Pulsar's sentence."""
    notes().hset(FAILED, failure["context"], failure["reason"])
