"""Renew the leases of many lanes at once: what idles must not cost a round trip for each lane."""

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

    An owner asks for each renewal by :meth:`tick`, or leaves them to :meth:`rest` while his lane is
    idle. No pipeline waits for another, which may hang.

    Arguments:
        redis: which holds the lanes; its calls end by themselves.
        every: seconds between two renewals of a lane that rests, at most.
        monotonic: the owners' clock, in seconds.
    """

    def __init__(self, redis: Redis, every: float, monotonic: Callable[[], float]) -> None:
        self._scripts = AsyncScripts(redis)
        self._every = every
        self._monotonic = monotonic
        #: To be renewed as soon as the loop has run what is to run now.
        self._asked: list[_Asked | _Resting] = []
        #: To be renewed at the next moment that those who rest have in common.
        self._resting: list[_Asked | _Resting] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def tick(self, store: LeasedLane) -> LaneTick:
        """Do as :meth:`LeasedLane.tick`, together with all who ask at this moment.

        Raises:
            Fenced, StoreRolledBack: this lane is meant, and no other.
            RedisError, OSError: as from redis-py; where the connection is meant, all get it.
        """
        asked = _Asked(store)
        if len(self._asked) in (0, _PIPELINE_COUNT):
            self._asked = []
            asyncio.get_running_loop().call_soon(self._ask, self._asked)
        self._asked.append(asked)
        return await asked.answer

    async def renew_in_background(
        self, store: LeasedLane, until: float, renewed: Callable[[float], None]
    ) -> None:
        """Keep a lane's lease renewed while the lane is idle.

        Returns when it is not, or when Redis did not say so, for whatever reason: the owner then
        asks for himself, by :meth:`tick`.

        Arguments:
            until: by the clock; return after the first renewal from then on at the latest.
            renewed: is told of each renewal: the clock's time before Redis was asked.
        """
        resting = _Resting(store, until, renewed)
        self._rest(resting)
        await resting.answer

    async def close(self) -> None:
        """Give up what is under way; who waits for it is cancelled."""
        await cancel_all(self._under_way)

    def _rest(self, resting: _Resting) -> None:
        if len(self._resting) in (0, _PIPELINE_COUNT):
            self._resting = []
            loop = asyncio.get_running_loop()
            loop.call_later(self._every, self._ask, self._resting)
        self._resting.append(resting)

    def _ask(self, asked: list[_Asked | _Resting]) -> None:
        """Renew these, of whom there will be no more."""
        if asked is self._asked:
            self._asked = []
        if asked is self._resting:
            self._resting = []
        # Who was cancelled may have given his lane back.
        waiting = [each for each in asked if not each.answer.done()]
        if waiting:
            task = asyncio.ensure_future(self._renew(waiting))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _renew(self, waiting: Sequence[_Asked | _Resting]) -> None:
        asked_at = self._monotonic()
        try:
            found = await self._tick_all([each.store for each in waiting])
            for each, tick in zip(waiting, found, strict=True):
                if (resting := each.hear(tick, asked_at)) is not None:
                    self._rest(resting)
        except BaseException:
            for each in waiting:
                each.answer.cancel()
            raise

    async def _tick_all(self, stores: Sequence[LeasedLane]) -> Sequence[LaneTick | Exception]:
        try:
            if len(stores) == 1:
                # It need not load the script.
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
    except Exception as error:  # noqa: BLE001  # it is this lane's alone
        return error


class _Asked:
    """An owner who wants one renewal, and what came of it."""

    __slots__ = ("answer", "store")

    def __init__(self, store: LeasedLane) -> None:
        self.store = store
        self.answer: asyncio.Future[LaneTick] = asyncio.get_running_loop().create_future()

    def hear(self, tick: LaneTick | Exception, asked_at: float) -> _Resting | None:
        """Take what came of a renewal; return who wants another one."""
        if not self.answer.done():
            if isinstance(tick, Exception):
                self.answer.set_exception(tick)
            else:
                self.answer.set_result(tick)
        return None


class _Resting:
    """An owner who wants renewals while his lane is idle."""

    __slots__ = ("_renewed", "_until", "answer", "store")

    def __init__(self, store: LeasedLane, until: float, renewed: Callable[[float], None]) -> None:
        self.store = store
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._until = until
        self._renewed = renewed

    def hear(self, tick: LaneTick | Exception, asked_at: float) -> _Resting | None:
        """Take what came of a renewal; return who wants another one."""
        if self.answer.done():
            return None
        if not isinstance(tick, Exception):
            self._renewed(asked_at)
            if tick.idle and asked_at < self._until:
                return self
        self.answer.set_result(None)
        return None
