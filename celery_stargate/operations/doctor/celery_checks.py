"""Celery's side: the broker, the result backend, the versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from celery.backends.base import BaseKeyValueStoreBackend, DisabledBackend
from celery.exceptions import ImproperlyConfigured
from packaging.version import InvalidVersion, Version

from celery_stargate.operations.doctor.finding import Check, Problem, error, note, warning
from celery_stargate.support.daemon_call import wait_in_daemon

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["CELERY_CHECKS", "CeleryFacts", "gather_celery", "package_versions"]

#: The lowest versions that the tests run with, as in pyproject.toml.
_LOWEST = {
    "celery": "5.5",
    "kombu": "5.5",
    "msgspec": "0.19",
    "redis": "5.2.1",
    "websockets": "15",
}
#: The bound on one question, and on connecting to the broker, in seconds.
_TIMEOUT = 10.0
_CONNECT_TIMEOUT = 5
#: Celery's default for a broker on Redis, in seconds.
_VISIBILITY = 3600.0
_HELP = (
    "or install the package that it needs; in a password each of @ : / % # ? is written as % and "
    "its code"
)


@dataclass(frozen=True, kw_only=True)
class CeleryFacts:
    """What Celery is set up with."""

    versions: Mapping[str, str | None] = field(default_factory=dict)
    broker: str = ""
    #: Why Celery cannot make a connection to it at all.
    broker_unusable: str | None = None
    broker_problem: str | None = None
    #: The class of the result backend.
    backend: str = ""
    results_disabled: bool = False
    #: Why Celery cannot make it at all.
    backend_unusable: str | None = None
    backend_problem: str | None = None
    #: Seconds after which a Redis broker delivers an unacknowledged task again.
    visibility_timeout: float | None = None
    delivery_timeout: float = 0.0
    via: str = "lane"
    hiredis: bool = True


def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that matter; None for one that is not installed."""
    return {name: _version_of(name) for name in ("celery-stargate", *_LOWEST, "hiredis")}


def gather_celery(app: Celery, *, via: str, delivery_timeout: float) -> CeleryFacts:
    """Ask Celery, its broker and its result backend.

    Arguments:
        via: ``stargate_via``.
        delivery_timeout: ``stargate_delivery_timeout``, in seconds.
    """
    versions = package_versions()
    return CeleryFacts(
        versions=versions,
        delivery_timeout=delivery_timeout,
        via=via,
        hiredis=versions["hiredis"] is not None,
        **_ask_broker(app),
        **_ask_backend(app),
    )


def _ask_broker(app: Celery) -> dict[str, Any]:
    try:
        transport = app.connection_for_write()
        facts: dict[str, Any] = {"broker": str(transport.as_uri())}
        if transport.transport_cls in ("redis", "rediss", "sentinel"):
            options = app.conf.broker_transport_options or {}
            facts["visibility_timeout"] = float(options.get("visibility_timeout", _VISIBILITY))
    except Exception as problem:  # noqa: BLE001  # each transport raises its own
        return {"broker_unusable": _told(problem, app.conf.broker_write_url)}
    return {**facts, "broker_problem": _problem(lambda: _connect(app))}


def _ask_backend(app: Celery) -> dict[str, Any]:
    try:
        backend: Any = app.backend
    except Exception as problem:  # noqa: BLE001  # each backend raises its own
        return {"backend_unusable": _told(problem, app.conf.result_backend)}
    return {
        "backend": type(backend).__name__,
        "results_disabled": isinstance(backend, DisabledBackend),
        "backend_problem": _problem(lambda: _read(backend)),
    }


def _told(problem: Exception, url: object) -> str:
    """Return an error's class, and of its message what cannot be a part of a password.

    Arguments:
        problem: what was raised when Celery read the URL.
        url: the setting.
    """
    message = str(problem.args[0]) if problem.args else ""
    scheme, separator, _ = str(url).partition("://")
    if "@" in (scheme if separator else str(url)):
        # What is before the password is taken for the name of a module, and is in the message.
        message = ""
    elif isinstance(problem, ValueError):
        # It quotes what it cannot read.
        message = re.split("['\"]", message)[0].removesuffix(" as ").rstrip(" :")
    elif not isinstance(problem, (ImportError, KeyError, ImproperlyConfigured)):
        message = ""
    name = type(problem).__name__
    return f"{name}: {' '.join(message.split())}" if message else name


def _connect(app: Celery) -> None:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_TIMEOUT)


def _read(backend: Any) -> None:
    """Read a result that is not there; only of stores that answer such a question."""
    if isinstance(backend, BaseKeyValueStoreBackend):
        backend.get(backend.get_key_for_task("stargate-doctor"))


def _problem(question: Callable[[], None]) -> str | None:
    """Return why a question failed, without what may hold a secret; None if it did not."""
    try:
        # The end of the program does not wait for a driver that hangs.
        wait_in_daemon(question, _TIMEOUT)
    except TimeoutError:
        return f"no answer within {_TIMEOUT:g} s"
    except Exception as problem:  # noqa: BLE001  # each driver raises its own
        return type(problem).__name__
    return None


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versions(facts: CeleryFacts) -> Iterable[Problem]:
    for name, lowest in _LOWEST.items():
        found = facts.versions.get(name)
        try:
            fits = found is None or Version(found) >= Version(lowest)
        except InvalidVersion:
            continue
        if not fits:
            yield error(
                f"{name} is {found}",
                f"celery-stargate is tested with {name} {lowest} and newer",
                f"pip install '{name}>={lowest}'",
            )


def _speed(facts: CeleryFacts) -> Iterable[Problem]:
    if not facts.hiredis:
        yield note(
            "hiredis is not installed",
            "redis-py then packs and parses in Python, several times slower",
            "pip install 'redis[hiredis]'",
        )


def _broker(facts: CeleryFacts) -> Iterable[Problem]:
    if facts.broker_unusable:
        yield error(
            f"Celery cannot use its broker: {facts.broker_unusable}",
            "no task can be published, on_ack and on_error neither, and no worker starts",
            f"mend broker_url or broker_transport_options, {_HELP}",
        )
    elif facts.broker_problem:
        yield error(
            f"the broker does not answer: {facts.broker_problem} ({facts.broker})",
            "on_ack and on_error cannot be published; they are repeated until it does",
            "start the broker, or mend broker_url",
        )


def _backend(facts: CeleryFacts) -> Iterable[Problem]:
    if facts.results_disabled:
        yield note(
            "no result backend is configured",
            "produce_task.delay(msg).get() cannot wait; on_ack and stargate.produce work",
            "set result_backend to redis://… (fastest in the lanes' Redis)",
        )
    elif facts.backend_unusable:
        yield error(
            f"Celery cannot use its result backend: {facts.backend_unusable}",
            "results cannot be stored, and .get() fails",
            f"mend result_backend or result_serializer, {_HELP}",
        )
    elif facts.backend_problem:
        yield error(
            f"the result backend does not answer: {facts.backend_problem} ({facts.backend})",
            "results cannot be stored; .get() waits until it does",
            "start it, or mend result_backend",
        )


def _visibility(facts: CeleryFacts) -> Iterable[Problem]:
    if facts.visibility_timeout is None:
        return
    if facts.visibility_timeout < 60:
        yield warning(
            f"the broker's visibility_timeout is {facts.visibility_timeout:g} s",
            "callbacks and tasks that wait or run longer are delivered a second time",
            "set broker_transport_options['visibility_timeout'] to 3600",
        )


CELERY_CHECKS: list[Check[CeleryFacts]] = [
    Check("versions", "the packages are new enough", _versions),
    Check("hiredis", "hiredis is installed", _speed),
    Check("broker", "Celery's broker answers", _broker),
    Check("result-backend", "Celery's result backend answers", _backend),
    Check("visibility-timeout", "the broker redelivers late enough", _visibility),
]
