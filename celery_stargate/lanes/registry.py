"""The registry: which lanes and workers there are, and the events that tell workers of lanes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from redis.asyncio import Redis as AsyncRedis

from celery_stargate.lanes.connections import Connections, store_errors
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane, parse_lane
from celery_stargate.lanes.scripts import Argument, AsyncScripts, Scripts
from celery_stargate.support.log import logger

__all__ = ["KINDS", "CallerRegistry", "Kind", "Registry", "RegistryKeys", "parse_lanes"]

#: Who owns lanes: producer workers, and callers' processes while there is no worker.
Kind = Literal["workers", "callers"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: A lane is announced again after this many seconds of use.
_ANNOUNCE_EVERY = 60.0
#: About how many events are kept; a worker that misses one finds the lane at its next heartbeat.
_EVENTS_KEPT = 1000


@dataclass(frozen=True)
class RegistryKeys:
    """The keys of the registry; a hash tag puts all of them into one slot of a cluster.

    Arguments:
        prefix: what all keys begin with (``stargate_prefix``).
    """

    prefix: str

    def key(self, part: str) -> str:
        """Return the key of one part of the registry."""
        return f"{self.prefix}:{{registry}}:{part}"


class CallerRegistry:
    """The registry as callers use it: they announce the lanes they put into, and look for workers.

    Arguments:
        connections: to the Redis that holds the lanes.
        prefix: what all keys begin with.
        monotonic: the clock, in seconds, by which a lane is announced again.
    """

    def __init__(
        self,
        connections: Connections,
        prefix: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._scripts = Scripts(connections)
        self._prefix = prefix
        keys = RegistryKeys(prefix)
        self._announce_keys = [keys.key("lanes"), keys.key("events")]
        self._survey_keys = [[keys.key(kind), keys.key("lanes")] for kind in KINDS]
        self._monotonic = monotonic
        #: When each lane was announced last.
        self._announced: dict[Lane, float] = {}

    def announce(
        self, lane: Lane, options: Mapping[str, object] | None = None, *, again: bool = False
    ) -> None:
        """Make a lane known to the workers, unless this process did so within the last minute.

        Arguments:
            options: producer options for a worker whose settings do not have this topic.
            again: announce it in any case.

        Raises:
            RedisError, OSError: as redis-py raises them.
        """
        now = self._monotonic()
        if again:
            # First, so that the next put tries again if this fails.
            self._announced.pop(lane, None)
        known = self._announced.get(lane)
        if known is not None and now - known < _ANNOUNCE_EVERY:
            return
        if options is not None:
            text = json.dumps(options, sort_keys=True)
            self._connections.sync().hset(lane.key(self._prefix, "meta"), "options", text)
        self._scripts.run("registry/announce", self._announce_keys, [lane.name])
        self._announced[lane] = now

    def survey(self) -> tuple[int, list[Lane]]:
        """Return how many owners are alive, workers and callers, and the announced lanes.

        Raises:
            StoreUnavailable: Redis did not answer within about 15 s.
        """
        with store_errors():
            found = self._scripts.run_many(
                "registry/heartbeat", [(keys, ["", 0]) for keys in self._survey_keys]
            )
            for each in found:
                if isinstance(each, Exception):
                    raise each
        (workers, *names), (callers, *_) = found
        return int(workers) + int(callers), parse_lanes(names)


class Registry:
    """The registry as a worker's event loop uses it.

    Every method raises what redis-py raises when Redis is unavailable.

    Arguments:
        redis: a client of :meth:`Connections.asyncio`.
        prefix: what all keys begin with.
        kind: of this process: ``workers``, or ``callers``, which own lanes only while there is no
            worker.
    """

    def __init__(self, redis: AsyncRedis, prefix: str, kind: Kind = "workers") -> None:
        self._redis = redis
        self._kind = kind
        self._scripts = AsyncScripts(redis)
        self.keys = RegistryKeys(prefix)

    async def heartbeat(self, worker: str, ttl: float) -> tuple[int, list[Lane]]:
        """Keep an owner among the living of its kind.

        Arguments:
            worker: its name.
            ttl: seconds until the next heartbeat is overdue.

        Returns:
            How many of its kind are alive, and all lanes; :data:`CONTEXTS_LANE`, which nobody
            announces, is the first of them.
        """
        workers, *names = await self._run(
            "heartbeat", (self._kind, "lanes"), worker, round(ttl * 1000)
        )
        return int(workers), list(dict.fromkeys([CONTEXTS_LANE, *parse_lanes(names)]))

    async def leave(self, worker: str) -> None:
        """Remove an owner from the living, so that the others no longer count a share for it."""
        await self._run("heartbeat", (self._kind, "lanes"), worker, 0)

    async def has_workers(self) -> bool:
        """Return whether a producer worker is alive."""
        workers, *_ = await self._run("heartbeat", ("workers", "lanes"), "", 0)
        return bool(workers)

    async def announce_worker(self, worker: str) -> None:
        """Let the owners know at once that there is a new worker, which needs its share."""
        await self._announce("worker", worker)

    async def register(self, lane: Lane) -> None:
        """Put a lane into the list of lanes."""
        await self._run("announce", ("lanes", "events"), lane.name)

    async def deregister(self, lane: Lane, idle: float) -> bool:
        """Take a lane out of the list, unless a caller announced it recently.

        Arguments:
            idle: how many seconds ago the last announcement must be.

        Returns:
            Whether the lane is out of the list.
        """
        return bool(await self._run("retire", ("lanes",), lane.name, int(idle)))

    async def announce_free(self, lane: Lane) -> None:
        """Let the other workers know at once that nobody owns a lane."""
        await self._announce("free", lane.name)

    async def _announce(self, what: str, name: str) -> None:
        await self._redis.xadd(
            self.keys.key("events"), {what: name}, maxlen=_EVENTS_KEPT, approximate=True
        )

    async def _run(self, name: str, parts: Iterable[str], *arguments: Argument) -> Any:
        return await self._scripts.run(
            f"registry/{name}", [self.keys.key(part) for part in parts], arguments
        )


def parse_lanes(names: Iterable[bytes]) -> list[Lane]:
    """Read lanes' names; one that cannot be read is logged and left out."""
    lanes = []
    for name in names:
        try:
            lanes.append(parse_lane(name))
        except ValueError as error:
            logger.error("%s; left alone", error)
    return lanes
