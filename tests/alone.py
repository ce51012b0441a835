"""An app by itself in a Redis that others use: names of its own, and nothing left of it."""

from __future__ import annotations

from typing import Any

__all__ = ["forget", "own_names"]


def own_names(name: str, redis_url: str) -> dict[str, Any]:
    """Return the settings of an app whose broker is that Redis, and that no other app meets.

    Arguments:
        name: of the app; all its keys, queues and exchanges begin with it.
    """
    return {
        "broker_url": redis_url,
        "broker_connection_retry_on_startup": True,
        "task_default_queue": name,
        # Other people's workers in the same Redis must not hear what is meant for these.
        "control_exchange": f"{name}-control",
        "event_exchange": f"{name}-events",
        "event_queue_prefix": f"{name}-ev",
        "stargate_prefix": name,
    }


def forget(client: Any, name: str) -> None:
    """Delete all keys of such an app; kombu's own begin with words of its own."""
    for key in client.scan_iter(match=f"*{name}*", count=1000):
        client.delete(key)
