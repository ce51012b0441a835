"""Watch the logs of all lanes: one blocking read for each bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from celery_stargate.delivery.watcher import Found, Watcher
from celery_stargate.lanes.registry import Registry
from celery_stargate.support.cancel import cancel_all

__all__ = ["BucketWatchers", "make_watcher"]


def make_watcher(
    redis: Redis,
    blocking: Redis,
    registry: Registry,
    owner: str,
    on_event: Callable[[], None],
) -> Watcher | BucketWatchers:
    """Return what watches all lanes; the arguments are those of :class:`Watcher`."""
    if len(registry.all_keys) == 1:
        return Watcher(redis, blocking, registry, owner, on_event)
    return BucketWatchers(redis, blocking, registry, owner, on_event)


class BucketWatchers:
    """Watches the lanes of a Redis Cluster, whose blocking reads must not span slots.

    A bucket on a shard that is down does not hold up the others.

    Arguments:
        redis, blocking, registry, owner, on_event: as for :class:`Watcher`.
    """

    def __init__(
        self,
        redis: Redis,
        blocking: Redis,
        registry: Registry,
        owner: str,
        on_event: Callable[[], None],
    ) -> None:
        #: By the hash tag of the bucket.
        self._watchers = {
            _tag(keys.key("events")): Watcher(
                redis, blocking, registry, owner, on_event, keys.bucket
            )
            for keys in registry.all_keys
        }

    async def wait(self, log_key: str, after: int, timeout: float) -> Found | None:
        """Do as :meth:`Watcher.wait`."""
        return await self._watchers[_tag(log_key)].wait(log_key, after, timeout)

    async def run(self) -> None:
        """Watch until cancelled."""
        running = [asyncio.ensure_future(each.run()) for each in self._watchers.values()]
        try:
            # One that ends has failed; the supervisor starts all again.
            await asyncio.gather(*running)
        finally:
            await cancel_all(running)

    async def close(self) -> None:
        """Delete this process's streams.

        Raises:
            RedisError, OSError: a shard did not answer; the streams on the others are deleted.
        """
        closed = await asyncio.gather(
            *(each.close() for each in self._watchers.values()), return_exceptions=True
        )
        for each in closed:
            if isinstance(each, RedisError | OSError):
                raise each


def _tag(key: str) -> str:
    """Return the hash tag of a key."""
    return key.partition("{")[2].partition("}")[0]
