"""Connections to the Redis that holds the lanes. Only this module knows which Redis that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.connection import HiredisRespSerializer, parse_url
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.utils import HIREDIS_AVAILABLE

from celery_stargate.errors import ConfigurationError, StoreUnavailable
from celery_stargate.support.per_process import PerProcess

if TYPE_CHECKING:
    from celery import Celery

__all__ = [
    "UNAVAILABLE",
    "Connections",
    "find_redis_url",
    "store_errors",
    "stream_entries",
]

#: What redis-py raises when Redis is down, loading its data, read-only or full; it may pass.
UNAVAILABLE: tuple[type[Exception], ...] = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    OSError,
)

_SCHEMES = ("redis", "rediss", "unix")

#: Parts of a Redis URL that Celery and redis-py write differently.
_CELERY_TO_REDIS_PY = {
    "redis+socket://": "unix://",
    "socket://": "unix://",
    "ssl_cert_reqs=CERT_REQUIRED": "ssl_cert_reqs=required",
    "ssl_cert_reqs=CERT_OPTIONAL": "ssl_cert_reqs=optional",
    "ssl_cert_reqs=CERT_NONE": "ssl_cert_reqs=none",
}

#: What a URL that leaves these out means.
_URL_DEFAULTS = {"host": "localhost", "port": 6379, "db": 0}

# A call ends within about 15 s, whatever Redis does. A retry is safe: each script that must not run
# twice gets a token, and answers a repeated token as before.
_TIMEOUTS: Mapping[str, Any] = {
    "socket_connect_timeout": 3.0,
    "socket_timeout": 5.0,
    "health_check_interval": 30,
}
#: Seconds for a whole call from an event loop, including connecting and one retry.
_ASYNC_CALL_TIMEOUT = 5.0


def find_redis_url(setting: str | None, app: Celery) -> str:
    """Return the URL of the lanes' Redis: the setting, else the result backend's or the broker's.

    Arguments:
        setting: ``stargate_redis_url``; None if it is not set.
        app: the Celery app whose result backend and broker are tried next.

    Raises:
        ConfigurationError: the setting is not a Redis URL, or none of the three is.
    """
    candidates = (setting, app.conf.result_backend, app.conf.broker_write_url)
    for candidate in candidates:
        if not isinstance(candidate, str):
            continue
        url = _redis_py_url(candidate)
        try:
            scheme = urlsplit(url).scheme
        except ValueError:
            scheme = "unreadable"
        if scheme in _SCHEMES:
            return url
        if candidate is setting:
            raise ConfigurationError(
                "stargate_redis_url must be redis://, rediss:// or unix://, and its scheme is "
                f"{scheme!r}"
            )
    raise ConfigurationError(
        "no Redis for the lanes: set stargate_redis_url, or use redis:// for the result backend or "
        "the broker"
    )


class Connections:
    """Makes the clients of the Redis that holds the lanes.

    Everything else asks here for a client, so another topology (Sentinel, Cluster) changes only
    this class.

    Arguments:
        url: of the Redis, as :func:`find_redis_url` returns it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._sync = PerProcess(self._connect)

    def sync(self) -> redis.Redis:
        """Return this process's client for callers; its threads share it, a forked child does not.

        A call ends within about 15 s.
        """
        return self._sync.get()

    def asyncio(self) -> redis.asyncio.Redis:
        """Return a new client for one event loop; whoever asked for it closes it.

        A call or a pipeline ends within 5 s. It is retried once; further retries are up to the
        lane's owner.
        """
        retry = AsyncRetry(ExponentialBackoff(cap=0.5, base=0.05), 1)
        options = {**_TIMEOUTS, "socket_timeout": None}
        client = _Bounded.from_url(self._url, retry=retry, **options)
        if HIREDIS_AVAILABLE:
            pool: Any = client.connection_pool
            pool.connection_class = _packing(pool.connection_class)
        return client

    def blocking(self) -> redis.asyncio.Redis:
        """Return a new client for one event loop, to be used for reads that block and nothing else.

        A read must block for less than 5 s: calls are bounded as those of :meth:`asyncio`.
        """
        return self.asyncio()

    def holds_results(self, backend: object) -> bool:
        """Whether a result backend stores in this Redis (same database and user), or nowhere.

        Arguments:
            backend: the app's ``result_backend`` setting.
        """
        if backend is None:
            return True
        if not isinstance(backend, str):
            return False
        try:
            ours, theirs = (parse_url(each) for each in (self._url, _redis_py_url(backend)))  # type: ignore[no-untyped-call]
        except ValueError:
            return False
        return {**_URL_DEFAULTS, **ours} == {**_URL_DEFAULTS, **theirs}

    def close(self) -> None:
        """Close this process's client for callers; a later call connects again."""
        self.sync().close()

    def _connect(self) -> redis.Redis:
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 2)
        return redis.Redis.from_url(self._url, retry=retry, **_TIMEOUTS)


def _redis_py_url(url: str) -> str:
    for celerys, redis_pys in _CELERY_TO_REDIS_PY.items():
        url = url.replace(celerys, redis_pys, 1)
    return url


class _Bounded(redis.asyncio.Redis):
    """Bounds each call as a whole.

    With ``socket_timeout`` redis-py bounds each read and write of a call, with a task and timers
    that cost half as much as the call itself.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with _within(_ASYNC_CALL_TIMEOUT):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _BoundedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class _BoundedPipeline(Pipeline):
    """A pipeline of such a client, bounded as a whole."""

    async def execute(self, raise_on_error: bool = True) -> Any:
        async with _within(_ASYNC_CALL_TIMEOUT):
            return await super().execute(raise_on_error)


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise redis.exceptions.TimeoutError(f"no answer within {seconds:g} s") from None


@cache
def _packing(connection: type[Any]) -> type[Any]:
    """Return a class of connections that pack commands with hiredis.

    redis-py does so for its sync connections; its asyncio ones pack in Python, ten times slower.
    """
    packer = HiredisRespSerializer()

    class Packing(connection):  # type: ignore[misc]
        def pack_command(self, *args: Any) -> Any:
            return packer.pack(*args)

    return Packing


def stream_entries(reply: Any) -> list[tuple[bytes, list[Any]]]:
    """Return what ``XREAD`` found, stream by stream, for both RESP2 and RESP3 (``?protocol=3``)."""
    if isinstance(reply, dict):
        # RESP3 wraps the entries of each stream in one more list.
        return [(key, entries[0]) for key, entries in reply.items()]
    return list(reply or ())


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise :class:`StoreUnavailable` for what redis-py raises in the block."""
    try:
        yield
    except UNAVAILABLE as error:
        raise StoreUnavailable(f"Redis does not answer: {error}") from error
    except RedisError as error:
        raise StoreUnavailable(f"Redis refused the call: {error}") from error
