"""The app that the worker processes run: `python -m celery -A tests.acceptance.app worker`.

Its settings come from the environment, as JSON. It tells the test when the worker is ready, and
counts the signals that Celery sends in the worker's main process.
"""

from __future__ import annotations

import json
import os
from typing import Any

import redis
from celery import signals

from celery_stargate.delivery import producers
from tests.acceptance.tasks import BELIEVE, CONF, LOG_URL, READY, SIGNALS, SPANS, make_app

app = make_app(json.loads(os.environ[CONF]))


async def _believe(*_: Any) -> None:
    """Stand in for the question whether the broker deduplicates."""


if os.environ.get(BELIEVE):
    assert hasattr(producers, "require_deduplication"), "the control controls nothing"
    vars(producers)["require_deduplication"] = _believe

if os.environ.get(SPANS):
    from tests.acceptance.spans import trace_worker

    trace_worker(os.environ[LOG_URL], os.environ[SPANS])


@signals.worker_ready.connect
def _tell(**_: Any) -> None:
    with redis.Redis.from_url(os.environ[LOG_URL]) as client:
        client.rpush(os.environ[READY], os.getpid())


def _count(name: str) -> None:
    def receiver(sender: Any = None, **given: Any) -> None:
        request = given.get("request")
        task = getattr(request, "name", None) or getattr(sender, "name", None) or sender
        with redis.Redis.from_url(os.environ[LOG_URL]) as client:
            client.hincrby(os.environ[SIGNALS], f"{task} {name}", 1)

    getattr(signals, name).connect(receiver, weak=False)


if os.environ.get(SIGNALS):
    for _name in (
        "task_received",
        "task_prerun",
        "task_postrun",
        "task_success",
        "task_failure",
        "task_revoked",
        "before_task_publish",
        "after_task_publish",
        "task_sent",
    ):
        _count(_name)
