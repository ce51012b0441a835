"""Connections over TLS for event loops: certificates may be renewed while a process runs.

redis-py's connections for threads read the files of their certificates each time that they connect.
Those for event loops read them once, and a pool keeps its connections for the life of the process.
"""

from __future__ import annotations

from typing import Any

import redis.asyncio
from redis.asyncio import RedisCluster
from redis.asyncio.sentinel import Sentinel

__all__ = ["AsyncSSLConnection", "ReadsFilesAgain", "renew_cluster", "renew_sentinels"]


class ReadsFilesAgain:
    """Reads the files of authority, certificate and key each time that it connects."""

    _ssl_context: Any

    @property
    def ssl_context(self) -> Any:
        """Redis-py's, which reads the files when it has not done so; it forgets what it read."""
        self._ssl_context.context = None
        return self._ssl_context

    @ssl_context.setter
    def ssl_context(self, context: Any) -> None:
        self._ssl_context = context


class AsyncSSLConnection(ReadsFilesAgain, redis.asyncio.SSLConnection):
    """To one server."""


def renew_sentinels(client: Sentinel) -> Sentinel:
    """Let the connections to sentinels be such ones, if they use TLS; return the client."""
    for each in client.sentinels:
        pool: Any = each.connection_pool
        if issubclass(pool.connection_class, redis.asyncio.SSLConnection):
            pool.connection_class = AsyncSSLConnection
    return client


def renew_cluster(client: RedisCluster) -> RedisCluster:
    """Let the connections to the nodes of a Cluster be such ones; return the client.

    Arguments:
        client: over TLS, and not connected yet.
    """
    client.connection_kwargs["connection_class"] = AsyncSSLConnection
    for node in client.nodes_manager.startup_nodes.values():
        node.connection_class = AsyncSSLConnection
    return client
