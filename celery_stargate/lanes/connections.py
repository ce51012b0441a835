"""Connections to the Redis that holds the lanes."""

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

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["are_results_beside", "connect", "connect_async", "find_redis_url", "stream_entries"]

#: What redis-py raises where Redis is away, busy loading, read-only or full: it may pass.
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

#: What Celery writes in a Redis URL, and redis-py otherwise.
_CELERYS = {
    "redis+socket://": "unix://",
    "socket://": "unix://",
    "ssl_cert_reqs=CERT_REQUIRED": "ssl_cert_reqs=required",
    "ssl_cert_reqs=CERT_OPTIONAL": "ssl_cert_reqs=optional",
    "ssl_cert_reqs=CERT_NONE": "ssl_cert_reqs=none",
}

#: What a URL need not say.
_HERE = {"host": "localhost", "port": 6379, "db": 0}

# A call ends within about 15 s however Redis behaves. Repeats are harmless: each script that
# must not run twice knows its caller's token.
_TIMEOUTS: Mapping[str, Any] = {
    "socket_connect_timeout": 3.0,
    "socket_timeout": 5.0,
    "health_check_interval": 30,
}
#: Seconds for a whole call from an event loop, a connection and a repeat included.
_LOOPS_TIMEOUT = 5.0


def find_redis_url(setting: str | None, app: Celery) -> str:
    """Return the URL of the lanes' Redis: the setting, else the result backend's or the broker's.

    Raises:
        ConfigurationError: none of them is a Redis.
    """
    candidates = (setting, app.conf.result_backend, app.conf.broker_write_url)
    for candidate in candidates:
        if not isinstance(candidate, str):
            continue
        url = _as_redis_py_has_it(candidate)
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
        "no Redis for the lanes: set stargate_redis_url, or let the result backend or the broker "
        "be a redis:// one"
    )


def are_results_beside(backend: object, url: str) -> bool:
    """Whether results are stored in the Redis of a URL, database and user included, or nowhere.

    Arguments:
        backend: the result backend, as the app's settings have it.
    """
    if backend is None:
        return True
    if not isinstance(backend, str):
        return False
    try:
        ours, its = (parse_url(each) for each in (url, _as_redis_py_has_it(backend)))  # type: ignore[no-untyped-call]
    except ValueError:
        return False
    return {**_HERE, **ours} == {**_HERE, **its}


def _as_redis_py_has_it(url: str) -> str:
    for celerys, redis_pys in _CELERYS.items():
        url = url.replace(celerys, redis_pys, 1)
    return url


def connect(url: str) -> redis.Redis:
    """Return a client for callers: safe among threads, and not to be used after a fork."""
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 2)
    return redis.Redis.from_url(url, retry=retry, **_TIMEOUTS)


def connect_async(url: str) -> redis.asyncio.Redis:
    """Return a client for one event loop; beyond one repeat it retries nothing, its owner does.

    A call, or a pipeline, of it ends within 5 s.
    """
    retry = AsyncRetry(ExponentialBackoff(cap=0.5, base=0.05), 1)
    client = _Bounded.from_url(url, retry=retry, **{**_TIMEOUTS, "socket_timeout": None})
    if HIREDIS_AVAILABLE:
        pool: Any = client.connection_pool
        pool.connection_class = _packing(pool.connection_class)
    return client


class _Bounded(redis.asyncio.Redis):
    """Bounds a call as a whole.

    With ``socket_timeout`` redis-py bounds each part of it, by a task and timers that cost as much
    as half a call.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with _within(_LOOPS_TIMEOUT):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _BoundedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class _BoundedPipeline(Pipeline):
    """A pipeline of such a client."""

    async def execute(self, raise_on_error: bool = True) -> Any:
        async with _within(_LOOPS_TIMEOUT):
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
    """Return a class of connections that leave it to hiredis to pack what they send.

    So do redis-py's own, unless they are asyncio's: those pack in Python, ten times as slow.
    """
    packer = HiredisRespSerializer()

    class Packing(connection):  # type: ignore[misc]
        def pack_command(self, *args: Any) -> Any:
            return packer.pack(*args)

    return Packing


def stream_entries(reply: Any) -> list[tuple[bytes, list[Any]]]:
    """Return what ``XREAD`` found, stream by stream, whichever protocol the URL asked for."""
    if isinstance(reply, dict):
        # RESP3 (``?protocol=3``) wraps the entries of each stream once more.
        return [(key, entries[0]) for key, entries in reply.items()]
    return list(reply or ())


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except UNAVAILABLE as error:
        raise StoreUnavailable(f"Redis does not answer: {error}") from error
    except RedisError as error:
        raise StoreUnavailable(f"Redis refused the call: {error}") from error
