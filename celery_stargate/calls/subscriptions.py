"""When Celery's Redis backend subscribes to the result of a call that went into a lane."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend

__all__ = ["subscribe_when_awaited"]

_DONE = "_celery_stargate_subscribes_when_awaited"


def subscribe_when_awaited(backend: Any, lane_producer: type[Any]) -> None:
    """Let a Redis backend subscribe to a lane's result when somebody waits for it, not before.

    Celery subscribes before it publishes a task. Where that Redis is away, it tries again for about
    20 s, and then raises a RuntimeError: ``delay()`` would hang before it comes to the lane.
    ``AsyncResult.get`` subscribes too, and then looks whether the result is there already; so
    nothing is missed. Calls that go by Celery's broker are left as they are, and so are other
    backends, which may have to declare a queue.

    Arguments:
        backend: of the app; it is changed once.
        lane_producer: the class of the producers that put a task's message into its lane.
    """
    if not isinstance(backend, RedisBackend) or hasattr(backend, _DONE):
        return
    usual = backend.on_task_call

    def on_task_call(producer: Any, task_id: str) -> Any:
        return None if isinstance(producer, lane_producer) else usual(producer, task_id)

    backend.on_task_call = on_task_call  # type: ignore[method-assign]
    setattr(backend, _DONE, True)
