"""The crew: the owners of one process's share of the lanes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from celery_stargate.delivery.owner import RETIRE_AFTER, LaneOwner, Tools
from celery_stargate.delivery.renewals import Renewals
from celery_stargate.delivery.watcher import Watcher
from celery_stargate.errors import ConfigurationError
from celery_stargate.lanes.connections import UNAVAILABLE
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import LeasedLane
from celery_stargate.lanes.registry import Registry
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.support.cancel import cancel_all
from celery_stargate.support.log import logger

__all__ = ["Supervisor"]


#: How many lanes are released at a time: each takes a connection, of which redis-py has 100.
_RELEASES = 20


class MakeTools(Protocol):
    """Make what the owners share, of what only the crew knows and all the rest."""

    def __call__(
        self,
        *,
        watcher: Watcher,
        renewals: Renewals,
        monotonic: Callable[[], float],
        deregister: Callable[[Lane], Awaitable[bool]],
        register: Callable[[Lane], Awaitable[None]],
    ) -> Tools:
        """Return the tools."""


class Supervisor:
    """Attends among the workers, takes free lanes up to a fair share, and runs their owners.

    Arguments:
        settings: of the app.
        redis: for all but the watcher's read; closed at the end.
        blocking: a client of its own, for the read that blocks; closed at the end.
        make_tools: see :class:`MakeTools`.
        name: this process, among workers and on leases.
        shuffle: puts free lanes into an order by chance, so that workers do not race for the same.
        monotonic: the clock of leases and of what idles, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        blocking: Redis,
        make_tools: MakeTools,
        *,
        name: str,
        shuffle: Callable[[list[Lane]], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._registry = Registry(redis, settings.prefix)
        self._name = name
        self._redis = redis
        self._blocking = blocking
        self._shuffle = shuffle
        self._look = asyncio.Event()
        self._stopped = asyncio.Event()
        self._drain = 0.0
        self._owners: dict[Lane, tuple[LaneOwner, asyncio.Task[None]]] = {}
        self._leaving: dict[Lane, asyncio.Task[None]] = {}
        self._releases = asyncio.Semaphore(_RELEASES)
        self._watcher = Watcher(redis, blocking, self._registry.keys, name, self._look.set)
        self._renewals = Renewals(redis, settings.lease / 3, monotonic)
        self._tools = make_tools(
            watcher=self._watcher,
            renewals=self._renewals,
            monotonic=monotonic,
            deregister=self._deregister,
            register=self._registry.register,
        )

    def stop(self, drain: float) -> None:
        """Begin to stop; to be called in the loop."""
        self._drain = drain
        self._stopped.set()
        self._look.set()

    async def run(self) -> None:
        """Own lanes until stopped."""
        watching = asyncio.ensure_future(self._watcher.run())
        try:
            await self._warn_of_eviction()
            while not self._stopped.is_set():
                self._look.clear()
                try:
                    await self._share()
                except UNAVAILABLE as error:
                    logger.warning("Redis does not answer: %s", error)
                    await asyncio.sleep(0.5)
                    continue
                if watching.done():
                    watching.result()
                try:
                    async with asyncio.timeout(self._settings.lease / 3):
                        await self._look.wait()
                except TimeoutError:
                    continue
            await self._leave()
        finally:
            await cancel_all(
                [watching, *self._leaving.values(), *(task for _, task in self._owners.values())]
            )
            await self._renewals.close()
            await self._redis.aclose()
            await self._blocking.aclose()

    async def _warn_of_eviction(self) -> None:
        """Say so where Redis may throw away what is pending when it is full."""
        try:
            memory = await self._redis.info("memory")
        except (RedisError, OSError) as error:
            logger.debug("Redis does not tell of its memory: %s", error)
            return
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            logger.error(
                "Redis has maxmemory-policy %s: when it is full it throws pending messages away; "
                "set it to noeviction",
                policy,
            )

    async def _share(self) -> None:
        """Attend; take lanes that nobody owns, up to a fair share; hand over what is more."""
        self._forget_ended()
        workers, lanes = await self._registry.heartbeat(self._name, self._settings.lease)
        share = -(-len(lanes) // max(1, workers))
        free = [lane for lane in lanes if lane not in self._owners]
        self._shuffle(free)
        for lane in free:
            if len(self._owners) >= share:
                break
            await self._try(lane)
        for lane in list(self._owners)[share:]:
            self._hand_over(lane)

    async def _try(self, lane: Lane) -> None:
        store = LeasedLane(
            self._redis, self._settings.prefix, lane, self._name, self._settings.lease
        )
        if not await store.acquire():
            return
        owner = LaneOwner(store, await self._options(store), self._tools)
        task = asyncio.ensure_future(self._own(owner, store))
        self._owners[lane] = owner, task

    async def _options(self, store: LeasedLane) -> ProducerOptions:
        if not store.lane.has_messages:
            return self._settings.options
        _, options = self._settings.resolve(store.lane.topic)
        left = await store.options()
        try:
            return options.changed(left, f"the options of lane {store.lane.name}")
        except ConfigurationError as error:
            logger.error("%s; the settings of this worker are used", error)
            return options

    async def _own(self, owner: LaneOwner, store: LeasedLane) -> None:
        logger.info("lane %s: owned", owner.lane.name)
        try:
            await owner.run()
        except Exception:
            logger.exception("lane %s: its owner failed", owner.lane.name)
            # It is taken up again, here or elsewhere; at once would be a loop.
            await asyncio.sleep(1.0)
        finally:
            try:
                async with self._releases:
                    await store.release()
                    await self._registry.announce_free(owner.lane)
            except (RedisError, OSError) as error:
                logger.warning("lane %s: not released: %s", owner.lane.name, error)
            logger.info("lane %s: released", owner.lane.name)

    def _forget_ended(self) -> None:
        for lane, (_, task) in list(self._owners.items()):
            if task.done():
                del self._owners[lane]

    def _hand_over(self, lane: Lane) -> None:
        if lane in self._leaving:
            return
        owner, _ = self._owners[lane]
        leaving = asyncio.ensure_future(owner.drain(self._settings.drain_timeout))
        self._leaving[lane] = leaving
        leaving.add_done_callback(lambda _: self._leaving.pop(lane, None))

    async def _leave(self) -> None:
        try:
            # First, or the others would count a share for us and leave our lanes lying.
            await self._registry.leave(self._name)
        except UNAVAILABLE as error:
            logger.warning("Redis does not answer: %s", error)
        await asyncio.gather(
            *(owner.drain(self._drain) for owner, _ in self._owners.values()),
            return_exceptions=True,
        )
        tasks = {task for _, task in self._owners.values()}
        if tasks:
            await asyncio.wait(tasks, timeout=10.0)
        try:
            await self._watcher.close()
        except UNAVAILABLE as error:
            logger.warning("Redis does not answer: %s", error)

    async def _deregister(self, lane: Lane) -> bool:
        return await self._registry.deregister(lane, RETIRE_AFTER)

    def close_inherited(self) -> None:
        """In a forked child: let go of the sockets to Pulsar, which the parent goes on using.

        A child that holds one keeps the producer alive at Pulsar when the parent is killed. The
        numbers stay taken, so that what forgets these sockets later closes nothing of others.
        """
        nowhere = os.open(os.devnull, os.O_RDWR)
        for owner, _ in self._owners.values():
            if owner.descriptor is not None:
                os.dup2(nowhere, owner.descriptor, inheritable=False)
        os.close(nowhere)
