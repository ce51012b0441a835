"""The tasks of the workers in containers: pytest-celery copies this file there."""

from __future__ import annotations

import json
from typing import Any

from celery import Task, shared_task


@shared_task(bind=True)
def note(self: Task[..., None], argument: dict[str, Any], key: str) -> None:
    """Append what was given, and this task's id, to a list in the result backend's Redis."""
    entry = json.dumps({"argument": argument, "id": self.request.id})
    backend: Any = self.app.backend
    backend.client.rpush(key, entry)


@shared_task
def build(order: int) -> dict[str, str]:
    """Return the message of an order."""
    return {"key": f"order-{order}", "payload": "one lamp"}
