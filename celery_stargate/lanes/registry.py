"""The registry: which lanes and workers there are, and the events that tell workers of lanes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from celery_stargate.errors import StoreUnavailable
from celery_stargate.lanes.connections import UNAVAILABLE, Connections, store_errors
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.puts import options_text
from celery_stargate.lanes.registry_keys import KINDS, Kind, LaneNames, RegistryKeys
from celery_stargate.lanes.scripts import Argument, AsyncScripts, Scripts
from celery_stargate.support.bound import USUAL, bounded, call_bound, time_left
from celery_stargate.support.log import logger_of
from celery_stargate.support.processes import has_ended

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


#: A lane is announced again after this many seconds of use.
_ANNOUNCE_EVERY = 60.0
#: Seconds that one shard of a Cluster has to answer before another is asked.
_ONE_SHARD = 1.0
#: About how many events are kept; a worker that misses one finds the lane at its next heartbeat.
_EVENTS_KEPT = 1000


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
        self._all_keys = RegistryKeys.of_all(prefix)
        self._announce_keys = [[keys.key("lanes"), keys.key("events")] for keys in self._all_keys]
        #: The bucket that answered last: owners are in the registries of all.
        self._answers = 0
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
        if again:
            # First, so that the next put tries again if this fails.
            self.forget(lane)
        if self.is_announced(lane):
            return
        now = self._monotonic()
        bucket = lane.bucket(self._prefix)
        keys, arguments = self._announce_keys[bucket], [lane.name]
        if options is not None:
            keys = [lane.key(self._prefix, "meta"), *keys]
            arguments.append(options_text(options))
        self._healed(bucket, lambda: self._scripts.run("registry/announce", keys, arguments))
        self._announced[lane] = now

    def heal(self, lane: Lane, options: Mapping[str, object] | None = None) -> None:
        """Delete a list of lanes that has a wrong type, and announce a lane in a new one.

        A put found that it could not announce the lane. The message is recorded, so an error is not
        the caller's: this process's next put into the lane announces it.

        Arguments:
            options: as in :meth:`announce`.
        """
        try:
            self.announce(lane, options, again=True)
        except (RedisError, OSError) as error:
            logger.warning(
                "the lane is not announced yet, the next put does it: %s", error, lane=lane
            )

    def forget(self, lane: Lane) -> None:
        """Let the next put announce a lane in any case."""
        self._announced.pop(lane, None)

    def is_announced(self, lane: Lane) -> bool:
        """Whether a lane is known to the workers, as far as this process needs to care."""
        if not lane.has_messages:
            # The lane of contexts without messages always exists.
            return True
        known = self._announced.get(lane)
        return known is not None and self._monotonic() - known < _ANNOUNCE_EVERY

    def survey(self) -> tuple[int, list[Lane]]:
        """Return how many owners are alive, workers and callers, and the announced lanes.

        Raises:
            StoreUnavailable: Redis, or a shard of a Cluster, did not answer within the bound around
                this call, or 5 s.
        """
        owners, lanes = 0, []
        with call_bound(), store_errors():
            for keys in self._all_keys:
                found, names = self._look(keys)
                owners = max(owners, found)
                lanes += self._names.read(names)
        return owners, lanes

    def owners(self) -> int:
        """Return how many owners are alive, workers and callers.

        On a Cluster one shard that answers is enough.

        Raises:
            StoreUnavailable: Redis did not answer within the bound around this call, or 5 s.
        """
        count = len(self._all_keys)
        with call_bound():
            for step in range(count):
                bucket = (self._answers + step) % count
                last = step == count - 1
                try:
                    with bounded(USUAL if last else _ONE_SHARD), store_errors():
                        owners, _ = self._look(self._all_keys[bucket])
                except StoreUnavailable:
                    if last or time_left() <= 0:
                        raise
                else:
                    self._answers = bucket
                    return owners
        raise AssertionError("there is no bucket")

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
        ended: list[tuple[Kind, str]] = []
        with call_bound():
            with store_errors():
                known = self._all_keys[self._answers]
                for kind in KINDS:
                    names: Any = self._connections.sync().zrange(known.key(kind), 0, -1)
                    found = (name.decode(errors="replace") for name in names)
                    ended += [(kind, name) for name in found if has_ended(name)]
            for kind, name in ended:
                # On a Cluster each owner is in the registry of each bucket.
                for keys in self._all_keys:
                    self._remove([keys.key(kind), keys.key("lanes")], name)
        return bool(ended)

    def _remove(self, keys: Sequence[str], name: str) -> None:
        try:
            with store_errors():
                self._scripts.run("registry/heartbeat", keys, [name, 0])
        except StoreUnavailable:
            # Others do it, and it ends by itself.
            if len(self._all_keys) == 1:
                raise

    def _look(self, keys: RegistryKeys) -> tuple[int, list[bytes]]:
        """Return how many owners a registry knows, and the names of its lanes."""
        survey = [[keys.key(kind), keys.key("lanes")] for kind in KINDS]

        def look() -> list[Any]:
            found = self._scripts.run_many(
                "registry/heartbeat", [(each, ["", 0]) for each in survey]
            )
            for each in found:
                if isinstance(each, Exception):
                    raise each
            return found

        (workers, *names), (callers, *_) = self._healed(keys.bucket, look)
        return int(workers) + int(callers), names

    def _healed(self, bucket: int, call: Callable[[], _Reply]) -> _Reply:
        try:
            return call()
        except ResponseError as error:
            types = self._all_keys[bucket].types
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
        self.prefix = prefix
        #: The registries of all buckets.
        self.all_keys = RegistryKeys.of_all(prefix)
        #: The buckets that did not answer the last heartbeat, on a shard that is down.
        self.silent: frozenset[int] = frozenset()
        self._names = LaneNames()
        #: The lanes that each bucket listed last.
        self._listed: dict[int, list[Lane]] = {}

    async def heartbeat(self, worker: str, ttl: float) -> tuple[int, list[Lane]]:
        """Keep an owner among the living of its kind.

        A bucket that does not answer is in :attr:`silent` afterwards, and its lanes are those that
        it listed before.

        Arguments:
            worker: its name.
            ttl: seconds until the next heartbeat is overdue.

        Returns:
            How many of its kind are alive, and all lanes; :data:`CONTEXTS_LANE`, which nobody
            announces, is the first of them.
        """
        replies = await self._in_all("heartbeat", worker, round(ttl * 1000))
        for bucket, reply in replies.items():
            self._listed[bucket] = self._names.read(reply[1:])
        self.silent = frozenset(range(len(self.all_keys))) - replies.keys()
        lanes = (lane for bucket in sorted(self._listed) for lane in self._listed[bucket])
        workers = max(int(reply[0]) for reply in replies.values())
        return workers, list(dict.fromkeys([CONTEXTS_LANE, *lanes]))

    async def leave(self, worker: str) -> None:
        """Remove an owner from the living, so that the others no longer count a share for it."""
        await self._in_all("heartbeat", worker, 0)

    async def remove_ended(self) -> None:
        """Remove processes of this machine that have ended without leaving."""

        async def listed(keys: RegistryKeys) -> list[tuple[Kind, bytes]]:
            redis: Any = self._redis
            return [
                (kind, name) for kind in KINDS for name in await redis.zrange(keys.key(kind), 0, -1)
            ]

        found = await self._ask_all(listed)
        for kind, name in set(itertools.chain.from_iterable(found.values())):
            if has_ended(name.decode(errors="replace")):
                await self._in_all("heartbeat", name, 0, kind=kind)

    async def has_workers(self) -> bool:
        """Return whether a producer worker is alive."""
        replies = await self._in_all("heartbeat", "", 0, kind="workers")
        return any(reply[0] for reply in replies.values())

    async def announce_worker(self, worker: str) -> None:
        """Let the owners know at once that there is a new worker, which needs its share."""
        for keys in self.all_keys:
            if keys.bucket not in self.silent:
                # All owners watch the events of all buckets.
                await self._announce(keys, "worker", worker)
                return

    async def register(self, lane: Lane) -> None:
        """Put a lane into the list of lanes."""
        await self._run(self.keys_of(lane), "announce", ("lanes", "events"), lane.name)

    async def still_used(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Return those of some lanes that hold anything in Redis; a retired one does not."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                pipeline.exists(lane.key(self.prefix, "meta"))
            found = await pipeline.execute()
        return [lane for lane, exists in zip(lanes, found, strict=True) if exists]

    async def announce_free(self, lane: Lane) -> None:
        """Let the other workers know at once that nobody owns a lane."""
        await self._announce(self.keys_of(lane), "free", lane.name)

    def keys_of(self, lane: Lane) -> RegistryKeys:
        """Return the registry that a lane is in."""
        return self.all_keys[lane.bucket(self.prefix)]

    async def heal(self, keys: RegistryKeys, own: Mapping[str, str] | None = None) -> None:
        """Delete keys of a registry that are of a wrong type, if there are any.

        Arguments:
            keys: of the registry.
            own: keys of this process, and the type of each.
        """
        types = {**keys.types, **(own or {})}
        if await self._scripts.run("registry/heal", list(types), list(types.values())):
            logger.error(_HEALED)

    async def _announce(self, keys: RegistryKeys, what: str, name: str) -> None:
        """Add an event, which only saves time; a Redis that is full need not take it."""
        try:
            await self._redis.xadd(
                keys.key("events"), {what: name}, maxlen=_EVENTS_KEPT, approximate=True
            )
        except OutOfMemoryError as error:
            logger.debug("no event for %s %s: %s", what, name, error)

    async def _in_all(
        self, name: str, *arguments: Argument, kind: Kind | None = None
    ) -> dict[int, Any]:
        """Run a script in the registries of all buckets, as :meth:`_ask_all`."""
        parts = (kind or self._kind, "lanes")
        return await self._ask_all(lambda keys: self._run(keys, name, parts, *arguments))

    async def _ask_all(self, ask: Callable[[RegistryKeys], Awaitable[Any]]) -> dict[int, Any]:
        """Ask the registries of all buckets; return the replies of those that answer.

        Raises:
            RedisError, OSError: none of them answers, or Redis refuses the call.
        """
        if len(self.all_keys) == 1:
            return {0: await ask(self.all_keys[0])}
        replies: dict[int, Any] = {}
        failed: BaseException | None = None

        async def bounded_ask(keys: RegistryKeys) -> Any:
            async with asyncio.timeout(_ONE_SHARD):
                return await ask(keys)

        found = await asyncio.gather(*map(bounded_ask, self.all_keys), return_exceptions=True)
        for bucket, reply in enumerate(found):
            if not isinstance(reply, BaseException):
                replies[bucket] = reply
            elif isinstance(reply, UNAVAILABLE):
                failed = reply
            else:
                raise reply
        if not replies and failed is not None:
            raise failed
        return replies

    async def _run(
        self, registry: RegistryKeys, name: str, parts: Iterable[str], *arguments: Argument
    ) -> Any:
        keys = [registry.key(part) for part in parts]
        try:
            return await self._scripts.run(f"registry/{name}", keys, arguments)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            await self.heal(registry)
            return await self._scripts.run(f"registry/{name}", keys, arguments)


_HEALED = (
    "a key of the registry was of a wrong type in Redis and was deleted; workers and callers fill "
    "it again"
)


def is_wrong_type(error: BaseException) -> bool:
    """Whether Redis refused a command because a key is of another type."""
    return "WRONGTYPE" in str(error)
