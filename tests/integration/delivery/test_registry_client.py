"""``delivery/registry_client.py``: workers and lanes find one another, in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

from celery_stargate.delivery.registry_client import RegistryClient
from celery_stargate.lanes.connections import connect_async
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry import Registry
from tests.servers.fixtures import ServerAddress

LANE = Lane("persistent://public/default/orders", 3)


def run(server: ServerAddress, body: Callable[[RegistryClient], Awaitable[None]]) -> None:
    """Run a test's body with a registry of its own, in bounded time."""

    async def main() -> None:
        redis = connect_async(server.url)
        try:
            async with asyncio.timeout(20):
                await body(RegistryClient(redis, Registry(f"test-{uuid4().hex}")))
        finally:
            await redis.aclose()

    asyncio.run(main())


def test_workers_count_while_they_send_heartbeats(redis_server: ServerAddress) -> None:
    """One that leaves no longer counts."""

    async def body(registry: RegistryClient) -> None:
        assert await registry.heartbeat("one", 60.0) == (1, [])
        assert await registry.heartbeat("two", 60.0) == (2, [])
        assert (await registry.heartbeat("one", 0.0))[0] == 1

    run(redis_server, body)


def test_a_lane_is_known_until_it_is_deregistered(redis_server: ServerAddress) -> None:
    """Which it is not as long as it was used lately."""

    async def body(registry: RegistryClient) -> None:
        await registry.register(LANE)
        assert await registry.heartbeat("one", 60.0) == (1, [LANE])
        assert not await registry.deregister(LANE, 3600.0)
        assert await registry.heartbeat("one", 60.0) == (1, [LANE])

    run(redis_server, body)
