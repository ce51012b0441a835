"""What a supervisor does in the registry of lanes and workers, from the event loop."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry import Registry, parse_lanes
from celery_stargate.lanes.scripts import registry_script

__all__ = ["RegistryClient"]


class RegistryClient:
    """The registry of lanes and workers.

    Every method raises what redis-py raises while Redis is not available.

    Arguments:
        redis: that holds the registry.
        registry: its keys.
    """

    def __init__(self, redis: Redis, registry: Registry) -> None:
        self._redis = redis
        self._registry = registry

    async def heartbeat(self, worker: str, seconds: float) -> tuple[int, list[Lane]]:
        """Count a worker among the live ones; return how many live and which lanes there are.

        Arguments:
            worker: its name.
            seconds: until it no longer counts without another heartbeat; 0 takes it out.
        """
        ttl = round(seconds * 1000)
        workers, *names = await self._run("heartbeat", ("workers", "lanes"), worker, ttl)
        return workers, parse_lanes(names)

    async def register(self, lane: Lane) -> None:
        """Put a lane into the list of lanes."""
        await self._run("announce", ("lanes", "events"), lane.name)

    async def deregister(self, lane: Lane, unused: float) -> bool:
        """Take a lane out of the list of lanes unless it was used lately; return whether it is out.

        Arguments:
            unused: seconds for which nobody used it.
        """
        return bool(await self._run("retire", ("lanes",), lane.name, int(unused)))

    async def notify_free(self, lane: Lane) -> None:
        """Let the other workers know at once that a lane has no owner."""
        await self._redis.xadd(
            self._registry.key("events"), {"free": lane.name}, maxlen=1000, approximate=True
        )

    async def _run(self, name: str, parts: tuple[str, ...], *arguments: Any) -> Any:
        script = self._redis.register_script(registry_script(name))
        return await script(keys=[self._registry.key(part) for part in parts], args=arguments)
