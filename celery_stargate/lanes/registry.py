"""The registry: which lanes and workers there are, and the events that tell workers of lanes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args

from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import OutOfMemoryError, ResponseError

from celery_stargate.errors import shown
from celery_stargate.lanes.connections import Connections, store_errors
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.scripts import Argument, AsyncScripts, Scripts
from celery_stargate.support.bound import call_bound
from celery_stargate.support.log import logger_of
from celery_stargate.support.processes import has_ended
from celery_stargate.support.seldom import Seldom

__all__ = [
    "KINDS",
    "CallerRegistry",
    "Kind",
    "LaneNames",
    "Registry",
    "RegistryKeys",
    "is_wrong_type",
]

logger = logger_of(__name__)

_Reply = TypeVar("_Reply")

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

    @property
    def types(self) -> dict[str, str]:
        """Each key that all processes share, and its type in Redis."""
        return {
            **dict.fromkeys(map(self.key, KINDS), "zset"),
            self.key("lanes"): "zset",
            self.key("events"): "stream",
            self.key("apps"): "hash",
        }


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
        self._types = keys.types
        self._names = LaneNames()
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
        if not lane.has_messages:
            # The lane of contexts without messages always exists.
            return
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
        self._healed(
            lambda: self._scripts.run("registry/announce", self._announce_keys, [lane.name])
        )
        self._announced[lane] = now

    def survey(self) -> tuple[int, list[Lane]]:
        """Return how many owners are alive, workers and callers, and the announced lanes.

        Raises:
            StoreUnavailable: Redis did not answer within the bound around this call, or 5 s.
        """
        with call_bound(), store_errors():
            (workers, *names), (callers, *_) = self._healed(self._look)
        return int(workers) + int(callers), self._names.read(names)

    def tell_peers(
        self,
        name: str,
        ours: Callable[[int], bytes],
        kept: int,
        is_gone: Callable[[bytes, int], bool],
    ) -> tuple[int, dict[str, bytes]]:
        """Tell the other processes about this one, and return what they told.

        Arguments:
            name: this process's.
            ours: makes what is told, of the time.
            kept: seconds for which it is kept if nobody tells anything.
            is_gone: whether what a process told at some time is to be forgotten.

        Returns:
            The time of Redis in seconds, and what each process told.

        Raises:
            StoreUnavailable: Redis did not answer within the bound around this call, or 5 s.
        """
        key = RegistryKeys(self._prefix).key("apps")
        with call_bound(), store_errors():
            client: Any = self._connections.sync()
            now = int(client.time()[0])
            with client.pipeline(transaction=False) as pipeline:
                pipeline.hset(key, name, ours(now))
                pipeline.expire(key, kept)
                pipeline.hgetall(key)
                *_, found = pipeline.execute()
            gone = [field for field, told in found.items() if is_gone(told, now)]
            if gone:
                client.hdel(key, *gone)
        told = {field.decode(errors="replace"): value for field, value in found.items()}
        return now, told

    def remove_ended(self) -> bool:
        """Remove processes of this machine that have ended; return whether there were any.

        Raises:
            StoreUnavailable: Redis did not answer within the bound around this call, or 5 s.
        """
        removed = False
        with call_bound(), store_errors():
            for keys in self._survey_keys:
                names: Any = self._connections.sync().zrange(keys[0], 0, -1)
                for name in names:
                    if has_ended(name.decode(errors="replace")):
                        self._scripts.run("registry/heartbeat", keys, [name, 0])
                        removed = True
        return removed

    def _look(self) -> list[Any]:
        found = self._scripts.run_many(
            "registry/heartbeat", [(keys, ["", 0]) for keys in self._survey_keys]
        )
        for each in found:
            if isinstance(each, Exception):
                raise each
        return found

    def _healed(self, call: Callable[[], _Reply]) -> _Reply:
        try:
            return call()
        except ResponseError as error:
            types = self._types
            if not is_wrong_type(error):
                raise
            # Another process may have healed it first.
            if self._scripts.run("registry/heal", list(types), list(types.values())):
                logger.error(_HEALED)
            return call()


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
        self._names = LaneNames()

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
        return int(workers), list(dict.fromkeys([CONTEXTS_LANE, *self._names.read(names)]))

    async def leave(self, worker: str) -> None:
        """Remove an owner from the living, so that the others no longer count a share for it."""
        await self._run("heartbeat", (self._kind, "lanes"), worker, 0)

    async def remove_ended(self) -> None:
        """Remove processes of this machine that have ended without leaving."""
        for kind in KINDS:
            names: Any = await self._redis.zrange(self.keys.key(kind), 0, -1)
            for name in names:
                if has_ended(name.decode(errors="replace")):
                    await self._run("heartbeat", (kind, "lanes"), name, 0)

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

    async def still_used(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Return those of some lanes that hold anything in Redis; a retired one does not."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                pipeline.exists(lane.key(self.keys.prefix, "meta"))
            found = await pipeline.execute()
        return [lane for lane, exists in zip(lanes, found, strict=True) if exists]

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
        """Add an event, which only saves time; a Redis that is full need not take it."""
        try:
            await self._redis.xadd(
                self.keys.key("events"), {what: name}, maxlen=_EVENTS_KEPT, approximate=True
            )
        except OutOfMemoryError as error:
            logger.debug("no event for %s %s: %s", what, name, error)

    async def heal(self) -> None:
        """Delete keys that are of a wrong type, if there are any."""
        types = self.keys.types
        if await self._scripts.run("registry/heal", list(types), list(types.values())):
            logger.error(_HEALED)

    async def _run(self, name: str, parts: Iterable[str], *arguments: Argument) -> Any:
        keys = [self.keys.key(part) for part in parts]
        try:
            return await self._scripts.run(f"registry/{name}", keys, arguments)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            await self.heal()
            return await self._scripts.run(f"registry/{name}", keys, arguments)


_HEALED = (
    "a key of the registry was of a wrong type in Redis and was deleted; workers and callers fill "
    "it again"
)


def is_wrong_type(error: BaseException) -> bool:
    """Whether Redis refused a command because a key is of another type."""
    return "WRONGTYPE" in str(error)


class LaneNames:
    """Reads the members of the list of lanes. What is no lane is ignored, and logged in sum."""

    def __init__(self) -> None:
        self._log_now = Seldom()

    def read(self, names: Sequence[bytes]) -> list[Lane]:
        """Return the lanes that have messages, in the order of their names."""
        lanes = [lane for name in names if (lane := _lane(name)) is not None]
        if len(lanes) < len(names) and self._log_now():
            unknown = [name for name in names if _lane(name) is None]
            logger.error(
                "%d members of the list of lanes in Redis are no names of lanes and are ignored, "
                "such as %s",
                len(unknown),
                shown(unknown[0]),
            )
        return lanes


# A supervisor reads the same names every few seconds.
@lru_cache(maxsize=1 << 16)
def _lane(name: bytes) -> Lane | None:
    try:
        lane = Lane.parse(name.decode())
    except ValueError:
        return None
    # The lane of contexts without messages is announced by nobody.
    return lane if lane.has_messages else None
