"""Renew the leases of many lanes in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from redis.asyncio import Redis

from celery_stargate.lanes.leased import LaneTick, LeasedLane
from celery_stargate.lanes.scripts import AsyncScripts
from celery_stargate.support.cancel import cancel_all

__all__ = ["Renewals"]

#: How many lanes one pipeline renews at most: it must not hold the loop, or Redis, for long.
_PIPELINE_COUNT = 200


class Renewals:
    """Renews leases for all owners of a process, those of the same moment in one pipeline.

    The keeper of a lane asks for each renewal by :meth:`tick`, or for all of them by
    :meth:`renew_in_background` while the lane is idle. Pipelines run beside one another, as one of
    them may hang.

    Arguments:
        redis: that holds the lanes; each of its calls ends in bounded time.
        every: seconds at most between two renewals in the background.
        monotonic: the owners' clock, in seconds.
    """

    def __init__(self, redis: Redis, every: float, monotonic: Callable[[], float]) -> None:
        self._scripts = AsyncScripts(redis)
        self._every = every
        self._monotonic = monotonic
        #: The open batch of single requests: renewed in the loop's next iteration.
        self._single: list[_Single | _Repeated] = []
        #: The open batch of idle lanes: renewed when its timer fires.
        self._repeated: list[_Single | _Repeated] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def tick(self, store: LeasedLane) -> LaneTick:
        """Do as :meth:`LeasedLane.tick`, in one pipeline with all requests of this moment.

        Raises:
            Fenced, StoreRolledBack: for this lane alone.
            RedisError, OSError: as from redis-py; an error of the connection is raised for each
                lane of the pipeline.
        """
        request = _Single(store)
        if len(self._single) in (0, _PIPELINE_COUNT):
            self._single = []
            asyncio.get_running_loop().call_soon(self._close_batch, self._single)
        self._single.append(request)
        return await request.answer

    async def renew_in_background(
        self, store: LeasedLane, until: float, renewed: Callable[[float], None]
    ) -> None:
        """Keep a lane's lease renewed while the lane is idle.

        It returns when the lane is not idle any more or a renewal failed, for whatever reason. The
        keeper then calls :meth:`tick`, which tells it more.

        Arguments:
            until: by the clock; return after the first renewal from then on at the latest.
            renewed: called after each renewal with the clock's time before Redis was asked.
        """
        request = _Repeated(store, until, renewed)
        self._repeat(request)
        await request.answer

    async def close(self) -> None:
        """Cancel the renewals under way, and those that wait for them."""
        await cancel_all(self._under_way)

    def _repeat(self, request: _Repeated) -> None:
        if len(self._repeated) in (0, _PIPELINE_COUNT):
            self._repeated = []
            loop = asyncio.get_running_loop()
            loop.call_later(self._every, self._close_batch, self._repeated)
        self._repeated.append(request)

    def _close_batch(self, batch: list[_Single | _Repeated]) -> None:
        """Renew this batch; it is closed, later requests start a new one."""
        if batch is self._single:
            self._single = []
        if batch is self._repeated:
            self._repeated = []
        # The lane of a cancelled request may have been given back.
        buckets: dict[int, list[_Single | _Repeated]] = {}
        for each in batch:
            if not each.answer.done():
                buckets.setdefault(each.store.bucket, []).append(each)
        # Lanes on a shard that is down must not hold up the others.
        for waiting in buckets.values():
            task = asyncio.ensure_future(self._renew(waiting))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _renew(self, waiting: Sequence[_Single | _Repeated]) -> None:
        asked_at = self._monotonic()
        try:
            found = await self._tick_all([each.store for each in waiting])
            for each, tick in zip(waiting, found, strict=True):
                if (again := each.take(tick, asked_at)) is not None:
                    self._repeat(again)
        except BaseException:
            for each in waiting:
                each.answer.cancel()
            raise

    async def _tick_all(self, stores: Sequence[LeasedLane]) -> Sequence[LaneTick | Exception]:
        try:
            if len(stores) == 1:
                # A single one need not load the script.
                return [await stores[0].tick()]
            replies = await self._scripts.run_many(
                "tick", [store.tick_request() for store in stores]
            )
        except Exception as error:  # noqa: BLE001  # the owners judge it
            return [error] * len(stores)
        return [_read(store, reply) for store, reply in zip(stores, replies, strict=True)]


def _read(store: LeasedLane, reply: object) -> LaneTick | Exception:
    try:
        return store.read_tick(reply)
    except Exception as error:  # noqa: BLE001  # raised to this lane's keeper
        return error


class _Single:
    """A request for one renewal."""

    __slots__ = ("answer", "store")

    def __init__(self, store: LeasedLane) -> None:
        self.store = store
        self.answer: asyncio.Future[LaneTick] = asyncio.get_running_loop().create_future()

    def take(self, tick: LaneTick | Exception, asked_at: float) -> _Repeated | None:
        """Take the result of a renewal; return the request if it is to be repeated."""
        if not self.answer.done():
            if isinstance(tick, Exception):
                self.answer.set_exception(tick)
            else:
                self.answer.set_result(tick)
        return None


class _Repeated:
    """A request for renewals as long as the lane is idle."""

    __slots__ = ("_renewed", "_until", "answer", "store")

    def __init__(self, store: LeasedLane, until: float, renewed: Callable[[float], None]) -> None:
        self.store = store
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._until = until
        self._renewed = renewed

    def take(self, tick: LaneTick | Exception, asked_at: float) -> _Repeated | None:
        """Take the result of a renewal; return the request if it is to be repeated."""
        if self.answer.done():
            return None
        if not isinstance(tick, Exception):
            self._renewed(asked_at)
            if tick.idle and asked_at < self._until:
                return self
        self.answer.set_result(None)
        return None
