"""Which errors of effects pass, and which do not: one table for results, callbacks and canvases."""

from __future__ import annotations

import socket
from enum import Enum
from traceback import walk_tb
from typing import Any, TypeGuard

from celery.exceptions import BackendError
from kombu.exceptions import OperationalError
from redis import exceptions as redis_errors

from celery_stargate.errors import LaneFull, StoreUnavailable

__all__ = ["Dependency", "Interrupted", "Kind", "blamed", "kind_of"]


class Kind(Enum):
    """Whether it helps to repeat an effect that raised an error."""

    PASSING = "passing"  #: something is away: repeat the effect later
    PERMANENT = "permanent"  #: a repeat raises it again: tell it now, as Celery does


class Dependency(Enum):
    """What effects need beside this process; the value names it in the log."""

    LANES = "the Redis of the lanes"
    BACKEND = "the result backend"
    BROKER = "Celery's broker"


class Interrupted(BaseException):
    """A passing error inside Celery's tracer, which would store any ``Exception`` as a failure.

    Arguments:
        error: the passing error.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


#: These pass, whoever raises them.
_PASSING: tuple[type[BaseException], ...] = (
    OperationalError,  # kombu: the broker; ours: StoreUnavailable
    LaneFull,  # a produce task that follows: the lane may have room later
    BackendError,  # Celery could not read or write a result
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ReadOnlyError,
    redis_errors.ClusterDownError,
    redis_errors.MasterDownError,
    redis_errors.TryAgainError,
    redis_errors.OutOfMemoryError,
    ConnectionError,
    TimeoutError,
    BlockingIOError,
    InterruptedError,
    socket.gaierror,
    socket.herror,
)

#: Redis answers with these words while it cannot serve; redis-py has no classes for all of them.
_PASSING_ANSWERS = (
    *("LOADING", "READONLY", "MASTERDOWN", "MISCONF", "OOM", "UNBLOCKED", "CLUSTERDOWN"),
    *("NOREPLICAS", "TRYAGAIN", "BUSY"),
)

#: Clients of result backends, by the first part of their module, and what the names of their
#: passing errors contain. They need not be installed.
_CLIENTS = {
    *("sqlalchemy", "django", "psycopg", "psycopg2", "MySQLdb", "pymysql", "sqlite3", "asyncpg"),
    *("oracledb", "pymongo", "elasticsearch", "elastic_transport", "cassandra", "couchbase"),
    *("botocore", "azure", "google", "pylibmc", "memcache", "pymemcache", "consul", "kazoo"),
    *("urllib3", "requests", "httpx", "grpc", "amqp", "pyArango"),
}
_CLIENT_ERRORS = (
    *("OperationalError", "InterfaceError", "Connection", "Timeout", "TimedOut", "AutoReconnect"),
    *("Disconnect", "Unavailable", "Network", "NoHost", "ServerSelection", "Transport", "Retry"),
    *("Throttl", "RecoverableConnectionError", "RecoverableChannelError", "SessionExpired"),
)


#: Modules in which a lookup fails when a connection was lost.
_TRANSPORTS = ("kombu.transport.", "kombu.utils.eventio", "redis.")


def kind_of(error: BaseException, backend: Any = None) -> Kind:
    """Return the kind of an error that an effect raised.

    What is not known to pass is permanent: an error of the user's code, of the canvas or of the
    configuration must be told, and not be repeated without a sign.

    Arguments:
        error: the error; for a ``Reject`` or a ``Retry`` around one, the error inside decides.
        backend: Celery's result backend, which knows more errors of its own client.
    """
    inside = getattr(error, "reason", None)
    if isinstance(inside, BaseException):
        error = inside
    cause = error.__cause__
    if isinstance(error, OperationalError) and isinstance(cause, redis_errors.ResponseError):
        # kombu wraps what Redis answers to one message, such as a queue's key of another type.
        error = cause
    elif isinstance(error, OperationalError) and _is_of_message(cause):
        error = cause
    elif type(error) is RuntimeError and cause is not None:
        # Celery's Redis backend, when it has tried to connect for long.
        error = cause
    passing = (
        isinstance(error, _PASSING)
        or _is_answer_of_redis(error)
        or _is_error_of_client(error)
        or _is_error_of_network(error)
        or _is_error_of_backend(error, backend)
    )
    return Kind.PASSING if passing else Kind.PERMANENT


def blamed(error: BaseException, *, publishing: bool) -> Dependency | None:
    """Return what a passing error shows to be away; None if nothing is.

    Arguments:
        error: a passing error.
        publishing: whether the effect published a task and stored nothing.
    """
    if isinstance(error, LaneFull):
        return None
    if isinstance(error, StoreUnavailable):
        return Dependency.LANES
    if publishing or isinstance(error, OperationalError):
        return Dependency.BROKER
    return Dependency.BACKEND


def _is_answer_of_redis(error: BaseException) -> bool:
    return isinstance(error, redis_errors.ResponseError) and str(error).startswith(_PASSING_ANSWERS)


def _is_of_message(cause: BaseException | None) -> TypeGuard[LookupError]:
    """Whether kombu wrapped a lookup that failed for one message, such as that of its compression.

    kombu takes each ``KeyError`` for a lost connection to Redis: its transport raises some then.
    """
    if not isinstance(cause, LookupError):
        return False
    names = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(cause.__traceback__)]
    return bool(names) and not any(each.startswith(_TRANSPORTS) for each in names)


def _is_error_of_network(error: BaseException) -> bool:
    """Whether an error may be that of a connection: of no file, and from the system or py-amqp.

    py-amqp raises a bare ``OSError`` without a number when a server has closed its connection.
    """
    if not isinstance(error, OSError) or error.filename is not None:
        return False
    return error.errno is not None or type(error) is OSError


def _is_error_of_backend(error: BaseException, backend: Any) -> bool:
    """Whether a backend counts an error among those of its own client that pass.

    Celery's Redis backend names Python's ``KeyError`` and ``OSError``, too, and so a missing queue,
    an unknown task or a missing file: those do not pass.
    """
    if backend is None or isinstance(error, LookupError | OSError):
        return False
    return bool(backend.exception_safe_to_retry(error))


def _is_error_of_client(error: BaseException) -> bool:
    return any(
        each.__module__.partition(".")[0] in _CLIENTS
        and any(part in each.__name__ for part in _CLIENT_ERRORS)
        for each in type(error).__mro__
    )
