"""The acknowledger: owns lanes, in one thread with one event loop, for as long as it is started."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from .call import check_context
from .callback import Callbacks
from .cancel import cancel_all
from .client import Stargate
from .effects import Effects
from .errors import ConfigurationError
from .lane_owner import RETIRE_AFTER, LaneOwner, Tools
from .lanes.lane import CONTEXTS, Lane, Registry, parse_lanes
from .lanes.owner import LaneStore
from .lanes.record import Record
from .lanes.scripts import registry_script
from .lanes.store import UNAVAILABLE, connect_async
from .log import logger
from .outcome import Outcome
from .producer import Endpoint
from .settings import ProducerOptions
from .task import read_timeout
from .watcher import Watcher

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Acknowledger"]

_CONTEXTS_LANE = Lane(CONTEXTS)


class Acknowledger:
    """Keep every message without a receipt as a pending context, and settle it.

    Producer workers run one by themselves. In any other process::

        with Acknowledger(app) as acknowledger:
            future = acknowledger.produce("order-17")
            ...
            acknowledger.ack(Receipt(context="order-17"))      # from any process
            future.result(timeout=5)

    Arguments:
        app: a Celery app that has a :class:`~celery_stargate.Stargate`.
        hostname: the worker's name, for results and events.
        revoked: tells whether a context was revoked.
        on_done: called in the effects' thread with the record, its result, and whether it failed.

    Raises:
        ConfigurationError: the app has no Stargate, or a setting is wrong or missing.
    """

    def __init__(
        self,
        app: Celery,
        *,
        hostname: str | None = None,
        revoked: Callable[[str], bool] | None = None,
        on_done: Callable[[Record, Any, bool], None] | None = None,
    ) -> None:
        self._stargate = Stargate.of(app)
        self._app = app
        self._settings = self._stargate.settings
        self._redis_url = self._stargate.redis_url
        self._revoked = revoked or (lambda context: False)
        self._effects = Effects(app, self._stargate.lanes, hostname, on_done)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._crew: _Crew | None = None
        self._stop = threading.Event()
        _alive.add(self)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether its thread is alive in this process."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start owning lanes, in a thread of its own. Started twice, it runs once."""
        if self.running:
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._work, name="stargate", daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop: send nothing new, wait for what is in flight, and give the lanes back.

        Arguments:
            timeout: seconds to wait for receipts; by default ``stargate_drain_timeout``.
        """
        drain = self._settings.drain_timeout if timeout is None else timeout
        self._stop.set()
        loop, crew, thread = self._loop, self._crew, self._thread
        if loop is not None and crew is not None:
            try:
                loop.call_soon_threadsafe(crew.stop, drain)
            except RuntimeError:
                logger.debug("the acknowledger's loop has ended already")
        if thread is not None:
            # Beyond the drain: closing sockets, releasing leases, the effects under way.
            thread.join(drain + 15.0)
            if thread.is_alive():
                logger.error("the acknowledger did not stop within %.0f s", drain + 15.0)
        self._thread = None

    def produce(
        self, context: str, on_ack: Any = None, on_error: Any = None, timeout: Any = None
    ) -> Future[Any]:
        """Record a context without a message, which somebody acknowledges with :meth:`ack`.

        Arguments:
            context: its id.
            on_ack, on_error: the signature that gets the receipt, or the failure.
            timeout: seconds or a timedelta until its deadline; by default
                ``stargate_produce_timeout``, with a callback ``stargate_delivery_timeout``.

        Returns:
            A future: its ``result(timeout=…)`` is the receipt, or raises ``ProduceError`` or
            ``ProduceTimeout``.

        Raises:
            ContextInUse: it is pending already.
            InvalidMessage: the context is no printable text, or a callback is no signature.
            StoreUnavailable: Redis did not answer.
        """
        check_context(context)
        callbacks = Callbacks.freeze(on_ack, on_error, self._app)
        if timeout is not None:
            seconds = read_timeout(timeout)
        elif callbacks:
            seconds = self._settings.options.delivery_timeout
        else:
            seconds = self._settings.produce_timeout
        inbox = self._stargate.inbox
        # Where nobody owns the lane, the one who waits sees to the deadline.
        overdue = partial(self._stargate.settle_overdue_of, (_CONTEXTS_LANE,))
        ticket = inbox.expect((time.monotonic() + seconds, overdue))
        try:
            self._stargate.lanes.put(
                _CONTEXTS_LANE,
                Record(
                    context,
                    on_ack=callbacks.on_ack,
                    on_error=callbacks.on_error,
                    inbox=ticket.address,
                ),
                (),
                timeout=seconds,
                exclusive=True,
            )
        except BaseException:
            inbox.forget(ticket)
            raise
        return ticket.future

    def ack(self, outcome: Outcome) -> bool:
        """Give a context its outcome, from any process.

        A receipt counts from anyone. A failure counts for a context without a message; for a
        message only Pulsar's word to the lane's owner does.

        Returns:
            Whether this call settled it. A second, late or unknown one is logged, and harms
            nothing.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        lanes = self._stargate.lanes
        for lane in self._candidates(outcome):
            word, settled = lanes.settle(lane, outcome)
            if settled is not None:
                done = self._effects.run([settled])
                lanes.finish(lane, done)
                return True
            if word != "late":
                break
        else:
            word = "late"
        logger.info("an outcome for context %r changed nothing: %s", outcome.context, word)
        return False

    def _candidates(self, outcome: Outcome) -> list[Lane]:
        if outcome.topic is not None:
            topic, options = self._stargate.resolve(outcome.topic)
            return [Lane(str(topic), index) for index in range(options.lanes)]
        _, lanes = self._stargate.lanes.survey()
        return [_CONTEXTS_LANE, *(lane for lane in lanes if lane != _CONTEXTS_LANE)]

    def _work(self) -> None:
        """Run the loop, and again should it fail, until stopped."""
        wait = 0.5
        while not self._stop.is_set():
            try:
                asyncio.run(self._main())
            except Exception:
                logger.exception("the acknowledger failed; it starts again in %.1f s", wait)
                self._stop.wait(wait)
                wait = min(wait * 2, 10.0)
        self._crew = self._loop = None

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix="stargate-effects")
        try:
            self._crew = _Crew(
                self._stargate, self._redis_url, self._effects, self._revoked, executor
            )
            if self._stop.is_set():
                return
            await self._crew.run()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def drop_after_fork(self) -> None:
        """In a forked child: let go of what the parent owns, without a word on its sockets."""
        crew, self._crew, self._loop, self._thread = self._crew, None, None, None
        if crew is not None:
            crew.close_inherited()


#: All acknowledgers of this process, for its forked children.
_alive: weakref.WeakSet[Acknowledger] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for acknowledger in list(_alive):
        acknowledger.drop_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


class _Crew:
    """The owners of this process's share of the lanes."""

    def __init__(
        self,
        stargate: Stargate,
        redis_url: str,
        effects: Effects,
        revoked: Callable[[str], bool],
        executor: ThreadPoolExecutor,
    ) -> None:
        self._stargate = stargate
        self._settings = stargate.settings
        self._registry = Registry(self._settings.prefix)
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        self._redis: Redis = connect_async(redis_url)
        self._blocking: Redis = connect_async(redis_url)
        self._look = asyncio.Event()
        self._stopped = asyncio.Event()
        self._drain = 0.0
        self._owners: dict[Lane, tuple[LaneOwner, asyncio.Task[None]]] = {}
        self._leaving: dict[Lane, asyncio.Task[None]] = {}
        self._watcher = Watcher(
            self._redis, self._blocking, self._registry, self._name, self._look.set
        )
        self._tools = Tools(
            endpoint=lambda: Endpoint.of(self._settings),
            effects=effects,
            executor=executor,
            watcher=self._watcher,
            lease=self._settings.lease,
            receipt_timeout=self._settings.receipt_timeout,
            idle_timeout=self._settings.idle_timeout,
            revoked=revoked,
            unlist=self._unlist,
            list_again=self._list_again,
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
        ttl = round(self._settings.lease * 1000)
        workers, *names = await self._registry_call("attend", ("workers", "lanes"), self._name, ttl)
        lanes = list(dict.fromkeys([_CONTEXTS_LANE, *parse_lanes(names)]))
        share = -(-len(lanes) // max(1, workers))
        free = [lane for lane in lanes if lane not in self._owners]
        random.shuffle(free)
        for lane in free:
            if len(self._owners) >= share:
                break
            await self._try(lane)
        for lane in list(self._owners)[share:]:
            self._hand_over(lane)

    async def _try(self, lane: Lane) -> None:
        store = LaneStore(
            self._redis, self._settings.prefix, lane, self._name, self._settings.lease
        )
        if not await store.acquire():
            return
        owner = LaneOwner(store, await self._options(store), self._tools)
        task = asyncio.ensure_future(self._own(owner, store))
        self._owners[lane] = owner, task

    async def _options(self, store: LaneStore) -> ProducerOptions:
        if not store.lane.has_messages:
            return self._settings.options
        _, options = self._settings.resolve(store.lane.topic)
        left = await store.options()
        try:
            return options.changed(left, f"the options of lane {store.lane.name}")
        except ConfigurationError as error:
            logger.error("%s; the settings of this worker are used", error)
            return options

    async def _own(self, owner: LaneOwner, store: LaneStore) -> None:
        logger.info("lane %s: owned", owner.lane.name)
        try:
            await owner.run()
        except Exception:
            logger.exception("lane %s: its owner failed", owner.lane.name)
            # It is taken up again, here or elsewhere; at once would be a loop.
            await asyncio.sleep(1.0)
        finally:
            try:
                await store.release()
                await self._tell(owner.lane)
            except (RedisError, OSError) as error:
                logger.warning("lane %s: not released: %s", owner.lane.name, error)
            logger.info("lane %s: released", owner.lane.name)

    async def _tell(self, lane: Lane) -> None:
        """Let the others know at once that a lane is free."""
        await self._redis.xadd(
            self._registry.key("events"), {"free": lane.name}, maxlen=1000, approximate=True
        )

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
            await self._registry_call("attend", ("workers", "lanes"), self._name, 0)
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

    async def _unlist(self, lane: Lane) -> bool:
        return bool(await self._registry_call("retire", ("lanes",), lane.name, int(RETIRE_AFTER)))

    async def _list_again(self, lane: Lane) -> None:
        await self._registry_call("announce", ("lanes", "events"), lane.name)

    async def _registry_call(self, name: str, parts: tuple[str, ...], *arguments: Any) -> Any:
        script = self._redis.register_script(registry_script(name))
        return await script(keys=[self._registry.key(part) for part in parts], args=arguments)

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
