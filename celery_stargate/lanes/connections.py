"""Connections to the Redis that holds the lanes. Only this module knows which Redis that is."""

from __future__ import annotations

from typing import Any, Final, cast

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterCrossSlotError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)

from celery_stargate.errors import StoreUnavailable
from celery_stargate.lanes.async_client import (
    AsyncSentinelConnection,
    AsyncSentinelSSLConnection,
    BoundedAsyncRedis,
    one_retry,
    packing,
)
from celery_stargate.lanes.async_cluster import AsyncClusterClient
from celery_stargate.lanes.async_tls import AsyncSSLConnection, renew_cluster
from celery_stargate.lanes.passing import Epoch
from celery_stargate.lanes.sentinels import MasterWatch, async_sentinel, sync_sentinel
from celery_stargate.lanes.sync_client import (
    BoundedConnection,
    BoundedPool,
    BoundedRedis,
    BoundedSentinelConnection,
    BoundedSentinelPool,
    BoundedSentinelSSLConnection,
    BoundedSSLConnection,
    BoundedUnixConnection,
    no_retry,
)
from celery_stargate.lanes.sync_cluster import ClusterClient
from celery_stargate.lanes.target import Target, parse_target
from celery_stargate.support.per_process import PerProcess

__all__ = [
    "UNAVAILABLE",
    "Connections",
    "diagnose",
    "explain",
    "servers_of",
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

_SYNC: Final = {
    "tcp": BoundedConnection,
    "tls": BoundedSSLConnection,
    "unix": BoundedUnixConnection,
}
_ASYNC: Final = {
    "tcp": redis.asyncio.Connection,
    "tls": AsyncSSLConnection,
    "unix": redis.asyncio.UnixDomainSocketConnection,
}

#: What the text of an error tells of a Redis: what that means, and what to do.
_STATES: Final = {
    "READONLY": (
        "Redis is a replica, or was made one",
        "name the master, or the sentinels, in stargate_redis_url",
    ),
    "MASTERDOWN": ("Redis is a replica without its master", "start its master, or name another"),
    "NOREPLICAS": (
        "Redis has fewer replicas in step than its min-replicas-to-write",
        "bring its replicas back",
    ),
    "MISCONF": ("Redis cannot write to its disk", "look at its log, and make room there"),
    "max number of clients": (
        "Redis takes no more connections",
        "raise its maxclients, or lower stargate_redis_max_connections",
    ),
    "CERTIFICATE_VERIFY_FAILED": (
        "the certificate of Redis is not trusted",
        "set ssl_ca_certs in stargate_redis_options to the file of its CA",
    ),
    "No such file or directory": (
        "a file that leads to Redis is missing",
        "check the socket's path, or the files of ssl_… in stargate_redis_url and its options",
    ),
}

#: Seconds to connect, and after which an unused connection is tried before it is used.
_CONNECT, _HEALTH_CHECK = 3.0, 30
#: Seconds that Redis has for one answer at least: a blocking read takes 2 s.
_ANSWERS = 2.5


class Connections:
    """Makes the clients of the Redis that holds the lanes.

    Everything else asks here for a client, so another topology changes only this class and what it
    is made of.

    A call of a thread ends within the bound around it (:mod:`celery_stargate.support.bound`),
    and within 5 s where there is none: waiting for a connection, connecting and retries included.
    A retry is safe: each script that must not run twice gets a token, and answers a repeated token
    as before.

    Arguments:
        target: the Redis, or the URL of one.
        max_connections: how many connections the threads of this process share.
    """

    def __init__(self, target: Target | str, *, max_connections: int = 100) -> None:
        self._target = parse_target(target) if isinstance(target, str) else target
        self._max_connections = max_connections
        self._process = PerProcess(lambda: _Process(self._target, self._max_connections))

    def sync(self) -> redis.Redis:
        """Return this process's client for callers; its threads share it, a forked child does not.

        A call ends within the bound around it, or within 5 s.
        """
        return self._process.get().client()

    def asyncio(self) -> redis.asyncio.Redis:
        """Return a new client for one event loop; whoever asked for it closes it.

        A call or a pipeline ends within 5 s. It is retried once; further retries are up to the
        lane's owner.
        """
        return self._process.get().asyncio()

    def blocking(self) -> redis.asyncio.Redis:
        """Return a new client for one event loop, to be used for reads that block and nothing else.

        A read must block for less than 5 s: calls are bounded as those of :meth:`asyncio`.
        """
        return self.asyncio()

    @property
    def waits_for_master(self) -> bool:
        """Whether a broken connection may come back to another server: behind Sentinel."""
        return bool(self._target.sentinels)

    def same_as(self, other: Target | None) -> bool:
        """Whether another Redis is this one: the same database, and the same user."""
        return other is not None and other.identity == self._target.identity

    def close(self) -> None:
        """Close this process's client for callers; a later call connects again."""
        self._process.get().close()


class _Process:
    """The clients of one process."""

    def __init__(self, target: Target, max_connections: int) -> None:
        self._target = target
        self._epoch = Epoch()
        self._watch = MasterWatch(target, self._epoch) if target.sentinels else None
        self._sentinel = sync_sentinel(target) if target.sentinels else None
        made = self._make_cluster if target.nodes else self._make_client
        self._client = cast("redis.Redis", made(max_connections))

    def client(self) -> redis.Redis:
        if self._watch is not None:
            self._watch.touch()
        return self._client

    def close(self) -> None:
        self._client.close()
        if self._watch is not None:
            self._watch.close()
        if self._sentinel is not None:
            for each in self._sentinel.sentinels:
                each.close()

    def asyncio(self) -> redis.asyncio.Redis:
        if self._target.nodes:
            return cast("redis.asyncio.Redis", AsyncClusterClient(self._async_cluster))
        options = {**self._parameters(), "retry": one_retry(), "socket_timeout": None}
        tls = self._target.transport == "tls"
        pool: Any
        if self._target.sentinels:
            pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
                self._target.master_name,
                async_sentinel(self._target, one_retry()),
                connection_class=packing(
                    AsyncSentinelSSLConnection if tls else AsyncSentinelConnection
                ),
                epoch=self._epoch,
                **options,
            )
        else:
            kind = _ASYNC[self._target.transport]
            pool = redis.asyncio.ConnectionPool(connection_class=packing(kind), **options)
        client = cast("BoundedAsyncRedis", BoundedAsyncRedis.from_pool(pool))
        client.join(self._epoch, self._watch)
        return client

    def _make_cluster(self, max_connections: int) -> ClusterClient:
        def pool(**given: Any) -> BoundedPool:
            own = {
                "connection_class": _SYNC[self._target.transport],
                "epoch": self._epoch,
                "max_connections": max_connections,
                "retry": no_retry(),
                "socket_timeout": None,
                **self._parameters(),
            }
            return BoundedPool(**{**given, **own})

        return ClusterClient(self._target.nodes, pool, self._target.parameters.get("protocol"))

    def _async_cluster(self) -> redis.asyncio.RedisCluster:
        tls = self._target.transport == "tls"
        made = redis.asyncio.RedisCluster(
            startup_nodes=[ClusterNode(*each) for each in self._target.nodes],
            require_full_coverage=False,
            # It would close all connections after some slots have moved, those in use, too.
            reinitialize_steps=0,
            retry=one_retry(),
            ssl=tls,
            # Only so does redis-py notice that a node hangs, and look for the one in its place.
            **{"socket_timeout": _ANSWERS, **self._parameters()},
        )
        return renew_cluster(made) if tls else made

    def _make_client(self, max_connections: int) -> redis.Redis:
        tls = self._target.transport == "tls"
        options: dict[str, Any] = {
            "socket_timeout": None,
            **self._parameters(),
            "retry": no_retry(),
            "epoch": self._epoch,
            "max_connections": max_connections,
        }
        pool: BoundedPool
        if self._sentinel is not None:
            pool = BoundedSentinelPool(  # type: ignore[no-untyped-call]
                self._target.master_name,
                self._sentinel,
                connection_class=BoundedSentinelSSLConnection if tls else BoundedSentinelConnection,
                **options,
            )
        else:
            pool = BoundedPool(connection_class=_SYNC[self._target.transport], **options)
        client = cast("BoundedRedis", BoundedRedis.from_pool(pool))
        if self._sentinel is not None:
            client.behind_sentinel()
        return client

    def _parameters(self) -> dict[str, Any]:
        usual: dict[str, Any] = {"health_check_interval": _HEALTH_CHECK}
        if self._target.transport != "unix":
            usual["socket_connect_timeout"] = _CONNECT
        found = {**usual, **self._target.parameters}
        if "socket_timeout" in found:
            # With less, each blocking read would count as a server that hangs.
            found["socket_timeout"] = max(found["socket_timeout"], _ANSWERS)
        return found


def stream_entries(reply: Any) -> list[tuple[bytes, list[Any]]]:
    """Return what ``XREAD`` found, stream by stream, for both RESP2 and RESP3 (``?protocol=3``)."""
    if isinstance(reply, dict):
        # RESP3 wraps the entries of each stream in one more list.
        return [(key, entries[0]) for key, entries in reply.items()]
    return list(reply or ())


class _StoreErrors:
    """Raises :class:`StoreUnavailable`; it holds nothing, so all blocks share one."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, RedisError | OSError):
            raise StoreUnavailable(explain(error)) from error


_store_errors = _StoreErrors()


def store_error(error: BaseException) -> BaseException:
    """Return what the lanes raise for an error: of redis-py's a :class:`StoreUnavailable`."""
    if not isinstance(error, RedisError | OSError):
        return error
    made = StoreUnavailable(explain(error))
    made.__cause__ = error
    return made


def store_errors() -> _StoreErrors:
    """Raise :class:`StoreUnavailable` for what redis-py raises in the block."""
    return _store_errors


def explain(error: Exception) -> str:
    """Return what an error of redis-py means for the lanes, and what to do where that is known."""
    what, advice = diagnose(error)
    return f"{what}; {advice}" if advice else what


def diagnose(error: Exception) -> tuple[str, str | None]:
    """Return what an error of redis-py means for the lanes, and what to do; None if unknown."""
    # Redis and the operating system end some texts with a full stop.
    text = str(error).rstrip(".")
    match error:
        case MovedError() | ClusterCrossSlotError():
            return (
                "the URL of the lanes' Redis names a single server, and that is a node of a Redis "
                f"Cluster ({text})"
            ), "use rediscluster:// in stargate_redis_url"
        case AuthenticationError() | AuthorizationError():
            return (
                f"Redis refuses the user or the password: {text}",
                "check those in the URL of the lanes' Redis, or in stargate_redis_options",
            )
        case NoPermissionError():
            return (
                f"Redis does not allow its user a command: {text}",
                "give it what docs/redis.md lists",
            )
        case ReadOnlyError():
            return _known_by("READONLY", text)
        case OutOfMemoryError():
            return f"Redis is full: {text}", (
                "raise its maxmemory, or make room with `celery stargate dead archive` or "
                "`dead discard`"
            )
        case _:
            # A call that was tried until its bound ends with a ConnectionError of this text.
            word = next((each for each in _STATES if each in text), None)
            if word is not None:
                return _known_by(word, text)
            unavailable = isinstance(error, UNAVAILABLE)
            return f"Redis {'does not answer' if unavailable else 'refused the call'}: {text}", None


def _known_by(word: str, text: str) -> tuple[str, str]:
    what, advice = _STATES[word]
    return f"{what}: {text}", advice


def servers_of(client: Any) -> dict[str, Any]:
    """Return a client of each server that holds keys: of each master of a Cluster.

    Arguments:
        client: of :meth:`Connections.sync`.

    Returns:
        Clients by host and port; by an empty text for the only one.

    Raises:
        ConnectionError: no node of the Cluster answers.
    """
    if not isinstance(client, ClusterClient):
        return {"": client}
    found = {}
    for each in client.masters():
        address = each.connection_pool.connection_kwargs
        found[f"{address['host']}:{address['port']}"] = each
    return found
