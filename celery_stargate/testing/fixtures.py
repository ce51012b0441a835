"""What the fixtures of the pytest plugin do (`pytest_celery_stargate`), for any test framework."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from celery import Celery, _state, signals
from celery.app.utils import find_app
from celery.contrib.testing.worker import start_worker

from celery_stargate.app import Stargate
from celery_stargate.errors import ConfigurationError
from celery_stargate.testing.configuring import configured
from celery_stargate.testing.local_pulsar.server import LocalPulsar
from celery_stargate.testing.local_redis import LocalRedis
from celery_stargate.testing.memory import MemoryPulsar, eager_settings, in_memory
from celery_stargate.testing.remote import RemotePulsar

__all__ = ["base_app", "eager", "flush", "pulsar", "redis_server", "served", "worker"]

#: The name of the app that is made where none is imported.
_FALLBACK = "stargate_tests"
#: The option's value for a `LocalPulsar`.
_LOCAL = "local"


def base_app(name: str) -> Celery:
    """Return the app to test: by name, or Celery's current one, or else a new one.

    Args:
        name: as `celery -A` takes it; empty for Celery's current app.

    Raises:
        pytest.UsageError: the app has no Stargate, or cannot be imported.
    """
    if name:
        try:
            app: Celery = find_app(name)
        except Exception as error:
            raise pytest.UsageError(f"stargate_app = {name}: {error!r}") from error
        try:
            Stargate.of(app)
        except ConfigurationError as error:
            raise pytest.UsageError(f"stargate_app = {name}: {error}") from None
        return app
    current = _current_app()
    if current is not None:
        return current
    made = Celery(_FALLBACK, set_as_current=False)
    Stargate(made)
    return made


def _current_app() -> Celery | None:
    """Return Celery's current app, if it has a Stargate; none is made."""
    state: Any = _state
    current: Celery | None = state._tls.current_app or state.default_app  # noqa: SLF001
    return current if hasattr(current, "_celery_stargate") else None


@contextmanager
def _first(app: Celery) -> Iterator[None]:
    """Fail a test during which an app was imported, after one had to be made for it.

    The imported app was not the one that was tested: its messages went where its settings say.
    """
    yield
    current = _current_app()
    if app.main == _FALLBACK and current is not None and current is not app:
        pytest.fail(
            f"the app {current.main!r} was imported after the stargate fixtures had begun with "
            "an app of their own, so its messages went to its own Redis and Pulsar: import it at "
            "the top of the test module, or set stargate_app in pytest's ini file",
            pytrace=False,
        )


@contextmanager
def _current(app: Celery) -> Iterator[None]:
    """Let `produce_task` and all other shared tasks belong to the app that is tested.

    It need not be Celery's current one: `celery_app` of `celery.contrib.pytest` is not. An app that
    is imported meanwhile stays the current one, as anywhere.
    """
    state: Any = _state
    current, default = state._tls.current_app, state.default_app  # noqa: SLF001
    app.set_current()
    app.set_default()
    try:
        yield
    finally:
        if state._tls.current_app is app:  # noqa: SLF001
            state._set_current_app(current)  # noqa: SLF001
        if state.default_app is app:
            state.set_default_app(default)


@contextmanager
def eager(
    app: Celery, url: str, settings: dict[str, Any]
) -> Iterator[MemoryPulsar | LocalPulsar | RemotePulsar]:
    """Run an app in eager mode, on topics in memory or on a Pulsar."""
    if not url:
        with _first(app), _current(app), in_memory(app, **settings) as memory:
            yield memory
        return
    with (
        _first(app),
        _current(app),
        pulsar(url) as found,
        configured(app, **{**eager_settings(found.url), **settings}),
    ):
        _name_topics(app, found)
        yield found


@contextmanager
def pulsar(url: str) -> Iterator[LocalPulsar | RemotePulsar]:
    """Return the Pulsar of a test: a fresh `LocalPulsar`, or the real one of a URL."""
    if url in ("", _LOCAL, "memory://"):
        with LocalPulsar() as local:
            yield local
    else:
        yield RemotePulsar(url, os.environ.get("STARGATE_TEST_TOKEN"))


@contextmanager
def redis_server(url: str) -> Iterator[str]:
    """Return the URL of a Redis; without one, start a server and end it afterwards.

    Where none can be started, the tests are skipped; if `CI` is set, they fail.
    """
    if url:
        yield url
        return
    missing = LocalRedis.missing_reason()
    if missing and os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    if missing:
        pytest.skip(missing)
    with LocalRedis() as server:
        yield server.url


def flush(url: str) -> None:
    """Delete all keys of a Redis."""
    with redis.Redis.from_url(url) as client:
        client.flushall()


@contextmanager
def served(
    app: Celery, on: LocalPulsar | RemotePulsar, redis_url: str, settings: dict[str, Any]
) -> Iterator[None]:
    """Run an app on a Pulsar and a Redis, with a prefix of its own for all keys."""
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    options = {"global_keyprefix": f"{prefix}:"}
    given = {
        "broker_url": redis_url,
        "result_backend": redis_url,
        "broker_transport_options": options,
        "result_backend_transport_options": options,
        "broker_connection_retry_on_startup": False,
        "task_always_eager": False,
        "stargate_url": on.url,
        "stargate_redis_url": redis_url,
        "stargate_prefix": prefix,
        # A test that ends gives its lanes back soon.
        "stargate_drain_timeout": 1.0,
    }
    with _first(app), _current(app), configured(app, **{**given, **settings}):
        _name_topics(app, on)
        yield


@contextmanager
def worker(app: Celery, parameters: dict[str, Any]) -> Iterator[Any]:
    """Run a worker of an app in a thread."""
    state: Any = _state
    current, default = state._tls.current_app, state.default_app  # noqa: SLF001
    signals.setup_logging.connect(_leave_logging)
    try:
        with start_worker(app, **{"perform_ping_check": False, **parameters}) as found:
            yield found
    finally:
        signals.setup_logging.disconnect(_leave_logging)
        state._set_current_app(current)  # noqa: SLF001
        state.set_default_app(default)


def _leave_logging(**_: object) -> None:
    """Leave logging to the test run: Celery would take the handlers of pytest away."""


def _name_topics(app: Celery, on: LocalPulsar | RemotePulsar) -> None:
    """Let a Pulsar know the names that the app has for topics."""
    topics = Stargate.of(app).settings.topics
    on.aliases.update({name: full for name, (full, _) in topics.items()})
