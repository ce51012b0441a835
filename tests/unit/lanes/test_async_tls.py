"""Connections over TLS for event loops are of the kind that reads its files again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import Sentinel

from celery_stargate.lanes.async_client import AsyncSentinelSSLConnection
from celery_stargate.lanes.async_tls import (
    AsyncSSLConnection,
    ReadsFilesAgain,
    renew_cluster,
    renew_sentinels,
)


@pytest.mark.parametrize("kind", [AsyncSSLConnection, AsyncSentinelSSLConnection])
def test_what_was_read_is_forgotten(kind: type[ReadsFilesAgain]) -> None:
    """redis-py asks for the context whenever it connects, and would keep the first one."""
    connection = kind.__new__(kind)
    redis.asyncio.SSLConnection.__init__(connection, ssl_check_hostname=False)  # type: ignore[arg-type]
    first, second = (connection.ssl_context.get() for _ in range(2))
    assert first is not second
    assert not first.check_hostname


def test_sentinels_and_the_master_behind_them() -> None:
    """Those over plain TCP stay as they are."""
    assert issubclass(AsyncSentinelSSLConnection, ReadsFilesAgain)
    secure = Sentinel([("one", 1), ("two", 2)], sentinel_kwargs={"ssl": True})  # type: ignore[no-untyped-call]
    plain = Sentinel([("one", 1)])  # type: ignore[no-untyped-call]
    kinds = [each.connection_pool.connection_class for each in renew_sentinels(secure).sentinels]
    assert kinds == [AsyncSSLConnection, AsyncSSLConnection]
    for each in renew_sentinels(plain).sentinels:
        assert not issubclass(each.connection_pool.connection_class, redis.asyncio.SSLConnection)


def test_nodes_of_a_cluster() -> None:
    """Those that it begins with, and those that it finds."""

    async def go() -> None:
        made = redis.asyncio.RedisCluster(startup_nodes=[ClusterNode("one", 1)], ssl=True)
        renew_cluster(made)
        given: Any = made.get_connection_kwargs()
        found = ClusterNode("two", 2, **given)
        nodes = [*made.nodes_manager.startup_nodes.values(), found]
        assert [each.connection_class for each in nodes] == 2 * [AsyncSSLConnection]

    asyncio.run(go())
