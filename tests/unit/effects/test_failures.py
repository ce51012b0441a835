"""``effects/failures.py``: which errors pass."""

from __future__ import annotations

import socket
import sqlite3
from typing import Any

import kombu.compression
import pytest
import redis
from celery.exceptions import (
    BackendStoreError,
    Ignore,
    NotRegistered,
    QueueNotFound,
    Reject,
    Retry,
)
from kombu.exceptions import EncodeError, OperationalError, SerializerNotInstalled

from celery_stargate import LaneFull, StoreUnavailable
from celery_stargate.effects.failures import Dependency, Kind, blamed, kind_of
from tests.unit.helpers import make_app


def caused(error: Exception, cause: Exception) -> Exception:
    """Return an error with a cause, as kombu raises it."""
    error.__cause__ = cause
    return error


class _OfAClient(Exception):
    """An error of a backend's client that need not be installed."""

    __module__ = "sqlalchemy.exc"


_OfAClient.__name__ = "OperationalError"

PASSING: list[BaseException] = [
    OperationalError("the broker is away"),
    StoreUnavailable("Redis is away"),
    LaneFull("lane", 3, 3),
    BackendStoreError("not stored"),
    redis.ConnectionError("away"),
    redis.TimeoutError("late"),
    redis.BusyLoadingError("loading"),
    redis.ReadOnlyError("a replica"),
    redis.ResponseError("MISCONF cannot persist"),
    redis.ResponseError("OOM command not allowed"),
    ConnectionResetError("reset"),
    TimeoutError("late"),
    socket.gaierror(-2, "unknown name"),
    OSError(113, "no route to host"),
    OSError("Server unexpectedly closed connection"),
    sqlite3.OperationalError("database is locked"),
    _OfAClient("gone away"),
    Reject(OperationalError("a retry could not be published")),
    caused(OperationalError("away"), ConnectionRefusedError()),
    caused(RuntimeError("retry limit exceeded"), redis.ConnectionError("away")),
]
PERMANENT: list[BaseException] = [
    TypeError("takes 0 arguments"),
    ValueError("no"),
    EncodeError("no JSON"),
    SerializerNotInstalled("none"),
    QueueNotFound("missing"),
    NotRegistered("shop.gone"),
    RuntimeError("by a hook"),
    FileNotFoundError(2, "no such file", "/x"),
    PermissionError("by a hook"),
    KeyError("options"),
    IndexError("list index out of range"),
    redis.ResponseError("WRONGTYPE Operation against a key"),
    redis.DataError("invalid input"),
    sqlite3.IntegrityError("twice"),
    Reject(ValueError("no")),
    Ignore(),
    Retry("again", ValueError("why")),
    caused(OperationalError("WRONGTYPE"), redis.ResponseError("WRONGTYPE of a queue")),
]


#: Each counts errors of its own among those that pass.
BACKENDS = ["disabled", "redis://localhost:1", "cache+memory://", "file:///tmp"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes(error: BaseException, backend: str) -> None:
    """A server is away, or cannot serve now."""
    assert kind_of(error, make_app(result_backend=backend).backend) is Kind.PASSING


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_what_does_not(error: BaseException, backend: str) -> None:
    """A repeat raises it again, also where Celery's backend would repeat what raised it."""
    assert kind_of(error, make_app(result_backend=backend).backend) is Kind.PERMANENT


def test_a_backend_knows_errors_of_its_own() -> None:
    """As Celery asks it."""

    class OfItsClient(Exception):
        """An error of a client that is not in our table."""

    class Backend:
        def exception_safe_to_retry(self, error: Any) -> bool:
            return isinstance(error, OfItsClient)

    assert kind_of(OfItsClient(), Backend()) is Kind.PASSING
    assert kind_of(OfItsClient()) is Kind.PERMANENT


@pytest.mark.parametrize(
    ("error", "publishing", "away"),
    [
        (OperationalError(), True, Dependency.BROKER),
        (OperationalError(), False, Dependency.BROKER),
        (OSError(), True, Dependency.BROKER),
        (redis.ConnectionError(), False, Dependency.BACKEND),
        (StoreUnavailable(), True, Dependency.LANES),
        (LaneFull("lane", 3, 3), True, None),
    ],
)
def test_what_is_away(error: Exception, publishing: bool, away: Dependency | None) -> None:
    """Others that need the same wait; the rest goes on."""
    assert blamed(error, publishing=publishing) is away


def test_a_compression_that_does_not_exist_is_the_messages_own() -> None:
    """kombu tells it as a broker that is away, and the others would wait for its return."""
    error = OperationalError("'none'")
    try:
        kombu.compression.get_encoder("none")
    except KeyError as cause:
        error.__cause__ = cause
    assert kind_of(error) is Kind.PERMANENT


def test_a_lookup_that_fails_in_a_transport_passes() -> None:
    """A connection was lost while it was used."""
    error = OperationalError("7")
    try:
        exec("{}[7]", {"__name__": "kombu.transport.redis"})
    except KeyError as cause:
        error.__cause__ = cause
    assert kind_of(error) is Kind.PASSING
    assert kind_of(caused(OperationalError("7"), KeyError(7))) is Kind.PASSING
