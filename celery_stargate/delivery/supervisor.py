"""Supervise the owners of one process's share of the lanes."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from celery_stargate import observers
from celery_stargate.delivery.ailing import AilingLanes
from celery_stargate.delivery.log_reader import NewerRecord
from celery_stargate.delivery.owner import LaneOwner
from celery_stargate.delivery.renewals import Renewals
from celery_stargate.delivery.shared import Services, Shared, StageThreads
from celery_stargate.delivery.watchers import make_watcher
from celery_stargate.lanes.connections import UNAVAILABLE
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import LeasedLane
from celery_stargate.lanes.registry import Registry
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.observers import LaneTakenOver
from celery_stargate.support.cancel import cancel_all
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

__all__ = ["Supervisor"]

logger = logger_of(__name__)

#: How many lanes are released at a time: each takes a connection, of which redis-py has 100.
_RELEASES = 20


# One method for each step in the life of a process that owns lanes; that makes more than 15.
class Supervisor:
    """Takes a fair share of the lanes among all workers, and runs an owner for each.

    A caller's process shares the lanes with other callers' while there is no worker, and hands all
    of them over when one comes. It ends by itself when it has had no reason to own them for long.

    It has more methods than a class should, by one: each step of taking a lane, and of giving it
    back, can fail by itself.

    Arguments:
        settings: of the app.
        redis: for all but the watcher's read; closed at the end.
        blocking: a client of its own, for the read that blocks; closed at the end.
        services: what the owners need.
        name: of this process, among workers and on leases.
        rng: draws jitter, and the order in which free lanes are tried, so that workers do not race
            for the same ones.
        monotonic: the clock of leases and of idle lanes, in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        blocking: Redis,
        services: Services,
        *,
        name: str,
        rng: random.Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._name = name
        self._redis = redis
        self._blocking = blocking
        self._look = asyncio.Event()
        self._stopped = asyncio.Event()
        self._drain = 0.0
        self._owners: dict[Lane, tuple[LaneOwner, asyncio.Task[None]]] = {}
        #: The lanes that the last heartbeat listed.
        self._listed: set[Lane] = set()
        self._leaving: dict[Lane, asyncio.Task[None]] = {}
        self._releases = asyncio.Semaphore(_RELEASES)
        self._demand = services.demand
        self._registry = Registry(
            redis, settings.keyspace, "workers" if self._demand is None else "callers"
        )
        self._known = False
        #: What was counted in all lanes when a caller's process last looked whether it is busy.
        self._counted = 0
        self._log_failure = Seldom(monotonic=monotonic)
        #: Whether to log that Redis is away; None while it answers.
        self._log_away: Seldom | None = None
        self._shared = Shared(
            settings=settings,
            threads=StageThreads(services.thread),
            services=services,
            watcher=make_watcher(redis, blocking, self._registry, name, self._look.set),
            renewals=Renewals(redis, settings.lease / 3, monotonic),
            rng=rng or random.Random(),  # noqa: S311  # jitter is no secret
            monotonic=monotonic,
        )
        self._ailing = AilingLanes(self._shared.rng.uniform, monotonic)

    def stop(self, drain: float) -> None:
        """Begin to stop; to be called in the loop."""
        self._drain = drain
        self._stopped.set()
        self._look.set()

    async def run(self) -> None:
        """Own lanes until stopped, in a caller's process at most as long as there is a reason."""
        watching: asyncio.Future[None] = asyncio.ensure_future(self._shared.watcher.run())
        try:
            await self._warn_of_eviction()
            while not self._stopped.is_set():
                self._look.clear()
                try:
                    await self._share()
                except UNAVAILABLE as error:
                    self._log_away = self._log_away or Seldom(monotonic=self._shared.monotonic)
                    if self._log_away():
                        logger.warning("Redis does not answer; it is tried again: %s", error)
                    await asyncio.sleep(0.5)
                    continue
                except RedisError as error:
                    # The lanes that are owned go on, and are no reason to start all of them anew.
                    if self._log_failure():
                        logger.error("the lanes cannot be shared; it is tried again: %s", error)
                else:
                    self._log_away = None
                if watching.done():
                    watching = self._watch_again(watching)
                if self._is_needless():
                    break
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
            self._shared.threads.close()
            await self._shared.renewals.close()
            await self._redis.aclose()
            await self._blocking.aclose()

    def _watch_again(self, ended: asyncio.Future[None]) -> asyncio.Future[None]:
        """Start the watcher again: without it no lane would hear of its messages."""
        logger.error("the watcher of the lanes ended; it starts again", exc_info=ended.exception())
        return asyncio.ensure_future(self._shared.watcher.run())

    async def _warn_of_eviction(self) -> None:
        """Log an error if Redis evicts keys when it is full: pending messages would be lost."""
        try:
            memory = await self._redis.info("memory")
        except (RedisError, OSError) as error:
            logger.debug("cannot read the memory settings of Redis: %s", error)
            return
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            logger.error(
                "Redis has maxmemory-policy %s: it evicts pending messages when it is full; set it "
                "to noeviction",
                policy,
            )

    async def _share(self) -> None:
        """Send a heartbeat; take free lanes up to a fair share; hand over the excess."""
        self._forget_ended()
        if not self._known:
            # What ended here without leaving would count as alive until its heartbeat is overdue.
            await self._registry.remove_ended()
        owners, lanes = await self._registry.heartbeat(self._name, self._settings.lease)
        lanes += await self._register_again(set(lanes))
        self._ailing.keep_only(lanes)
        share = -(-len(lanes) // max(1, owners))
        if self._demand is not None and await self._registry.has_workers():
            share = 0
            if not self._owners:
                self._demand.end()
        elif self._demand is None and not self._known:
            await self._registry.announce_worker(self._name)
        self._known = True
        may_try = self._ailing.may_try
        free = [lane for lane in lanes if lane not in self._owners and may_try(lane)]
        self._shared.rng.shuffle(free)
        await self._take_free(free, share)
        for lane in list(self._owners)[share:]:
            self._hand_over(lane)

    async def _take_free(self, free: Sequence[Lane], share: int) -> None:
        """Take lanes up to a share; those of a shard that is down wait, and the others do not."""
        down = set(self._registry.silent)
        for lane in free:
            if len(self._owners) >= share:
                break
            bucket = self._registry.keys_of(lane).bucket
            if bucket in down:
                continue
            try:
                await self._try(lane)
            except UNAVAILABLE as error:
                if len(self._registry.all_keys) == 1:
                    raise
                logger.warning("Redis does not answer: %s", error, lane=lane.name)
                down.add(bucket)

    async def _register_again(self, listed: set[Lane]) -> list[Lane]:
        """Register lanes that the list has lost; otherwise nobody would own them any more."""
        gone = (self._listed | self._owners.keys()) - listed
        lost = [lane for lane in gone if lane.has_messages]
        # A lane that was retired has nothing left in Redis.
        lost = await self._registry.still_used(lost) if lost else []
        for lane in lost:
            await self._registry.register(lane)
        self._listed = listed.union(lost)
        return lost

    def _is_needless(self) -> bool:
        """Whether this is a caller's process that has no reason to own lanes any more."""
        if self._demand is None:
            return False
        owners = [owner for owner, _ in self._owners.values()]
        counted = sum(owner.counters.sent + owner.counters.receipts for owner in owners)
        busy = counted != self._counted or not all(owner.at_rest for owner in owners)
        self._counted = counted
        return self._demand.has_ended(busy=busy)

    async def _try(self, lane: Lane) -> None:
        """Take a lane if it is free; a lane that fails is set aside, and no other with it."""
        try:
            await self._take(lane)
        except UNAVAILABLE:
            raise
        except Exception as error:
            self._ailing.failed(lane, error)

    async def _take(self, lane: Lane) -> None:
        store = LeasedLane(
            self._redis,
            self._settings.keyspace,
            lane,
            self._name,
            self._settings.lease,
            self._settings.dead_letter_rules,
        )
        if not await store.acquire():
            return
        try:
            owner = LaneOwner(store, await self._options(store), self._shared)
        except BaseException:
            await self._release(store)
            raise
        task = asyncio.ensure_future(self._own(owner, store))
        self._owners[lane] = owner, task

    async def _options(self, store: LeasedLane) -> ProducerOptions:
        if not store.lane.has_messages:
            return self._settings.options
        _, options = self._settings.resolve(store.lane.topic)
        try:
            left = await store.options()
            return options.changed(left, f"the options of lane {store.lane.name}")
        except UNAVAILABLE:
            raise
        except Exception as error:
            # Anybody may have left them: whatever they hold, the messages can be sent without.
            logger.error(
                "a caller's options for this lane cannot be used; this worker's settings apply: %s",
                error,
                lane=store.lane.name,
            )
            return options

    async def _own(self, owner: LaneOwner, store: LeasedLane) -> None:
        logger.info("owned", lane=owner.name)
        if observers.anybody():
            taken = LaneTakenOver(
                lane=store.lane.name,
                topic=store.lane.topic,
                owner=self._name,
                fencing_token=store.fencing_token,
            )
            observers.tell(lambda each: each.taken_over(taken))
        began = self._shared.monotonic()
        try:
            await owner.run()
        except Exception as error:
            self._ailing.failed(store.lane, error, self._shared.monotonic() - began)
            if not isinstance(error, NewerRecord):
                # Others would take the lane, too, and try the same at once.
                await asyncio.sleep(1.0)
        finally:
            await self._release(store)
            logger.info("released", lane=owner.name)

    async def _release(self, store: LeasedLane) -> None:
        try:
            async with self._releases:
                await store.release()
                await self._registry.announce_free(store.lane)
        except (RedisError, OSError) as error:
            logger.warning("not released: %s", error, lane=store.lane.name)

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
            # First: the others would still count a share for us, and would not take our lanes.
            await self._registry.leave(self._name)
        except (RedisError, OSError) as error:
            logger.warning("this worker could not leave the registry: %s", error)
        await asyncio.gather(
            *(owner.drain(self._drain) for owner, _ in self._owners.values()),
            return_exceptions=True,
        )
        tasks = {task for _, task in self._owners.values()}
        if tasks:
            await asyncio.wait(tasks, timeout=10.0)
        try:
            await self._shared.watcher.close()
        except (RedisError, OSError) as error:
            logger.warning("the stream of this worker could not be deleted: %s", error)

    def close_inherited(self) -> None:
        """In a forked child: close the inherited sockets to Pulsar; the parent goes on using them.

        A child that holds one keeps the producer alive at Pulsar when the parent is killed. Each
        descriptor's number stays in use, so that a later close of the socket object does not close
        something else.
        """
        nowhere = os.open(os.devnull, os.O_RDWR)
        for owner, _ in self._owners.values():
            if owner.descriptor is not None:
                os.dup2(nowhere, owner.descriptor, inheritable=False)
        os.close(nowhere)
