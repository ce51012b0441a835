"""Celery's Redis backend subscribes to each task's result at the call, whether anyone waits or not.

``RedisBackend.on_task_call`` (celery/backends/redis.py) sends a ``SUBSCRIBE`` for each task, and an
``UNSUBSCRIBE`` when its result is thrown away.
"""

from __future__ import annotations

import uuid
from typing import Any

from celery import Celery

from .findings import Finding
from .redis_of_its_own import redis_url
from .timing import micros_of

__all__ = ["measure"]


def measure(url: str) -> Finding:
    """Compare a call whose result is kept with one that has none."""
    app = Celery("case", broker=url, backend=url, set_as_current=False)

    @app.task(name="case.noop", shared=False)
    def noop() -> None:
        """Do nothing."""

    task: Any = noop
    kept = micros_of(task.delay)
    silent = micros_of(lambda: task.apply_async(ignore_result=True))
    subscribe = micros_of(lambda: app.backend.on_task_call(None, uuid.uuid4().hex))
    backend: Any = app.backend
    backend.result_consumer.stop()
    app.close()
    return Finding(
        "celery_results",
        "Celery subscribes to each result at the call",
        {
            "`delay()`": f"{kept:.0f} µs of CPU",
            "with `ignore_result`": f"{silent:.0f} µs",
            "to subscribe alone": f"{subscribe:.0f} µs",
        },
    )


if __name__ == "__main__":
    with redis_url() as url:
        print(measure(url))
