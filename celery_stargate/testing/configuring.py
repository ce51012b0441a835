"""Give a Celery app other settings for a while, and put its own back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.backends.redis import RedisBackend

from celery_stargate.calls.memory import Memory
from celery_stargate.calls.runtime import Runtime

__all__ = ["configured"]

_MISSING = object()


@contextmanager
def configured(app: Celery, **settings: Any) -> Iterator[None]:
    """Change an app's settings, as `app.conf.NAME = value` does; afterwards they are as before.

    What the app made with other settings is forgotten: connections, pools, the result backend.
    Messages that it has in memory stay there; with a ``stargate_url`` none are seen meanwhile.

    Args:
        app: a Celery app with a Stargate.
        settings: by name, such as `task_always_eager=True, stargate_url="memory://"`.

    Returns:
        A context manager.

    Raises:
        ConfigurationError: the app has no Stargate, or a setting is wrong.

    Example:
        >>> with configured(app, stargate_drain_timeout=60):
        ...     stargate.settings.drain_timeout
        60.0
    """
    runtime = Runtime.of(app)
    # It is loaded when the first value is read.
    conf: Any = app.conf
    conf.get("broker_url")
    conf = app.conf
    changes: dict[str, Any] = conf.changes
    before = dict(changes)
    memory = vars(runtime).get("memory")
    _forget(app, runtime)
    prefix: str = conf.prefix or ""
    for name, value in settings.items():
        # Celery before 5.7 finds a name with the app's namespace first, wherever it was set.
        full = prefix + name
        conf[full.upper() if prefix.isupper() else full] = value
    given = [name for name in changes if changes[name] is not before.get(name, _MISSING)]
    try:
        # A wrong setting is told here, and not in the middle of a test.
        runtime.settings  # noqa: B018
        if "stargate_url" not in settings:
            _remember(runtime, memory)
        yield
    finally:
        _forget(app, runtime)
        for name in given:
            if name in before:
                changes[name] = before[name]
            else:
                changes.pop(name, None)
        _remember(runtime, memory)


def _remember(runtime: Runtime, memory: Memory | None) -> None:
    """Go on with the messages in memory, where there were any."""
    if memory is not None:
        runtime.memory = memory


def _forget(app: Any, runtime: Runtime) -> None:
    """Forget what the app made, so that it is made again with the settings of that time."""
    runtime.reset()
    # What `Celery._after_fork` forgets, and the result backend. kombu keeps the pools.
    app._pool = None  # noqa: SLF001
    amqp = app.__dict__.get("amqp")
    if amqp is not None:
        amqp._producer_pool = None  # noqa: SLF001
    local: dict[str, Any] = app._local.__dict__  # noqa: SLF001
    for backend in (app._backend_cache, local.pop("backend", None)):  # noqa: SLF001
        if isinstance(backend, RedisBackend):
            # Results that are collected later would unsubscribe, from a Redis that is gone by then.
            consumer: Any = vars(backend)["result_consumer"]
            consumer.stop()
            consumer.subscribed_to.clear()
    app._backend_cache = None  # noqa: SLF001
