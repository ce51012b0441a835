"""Do the effects of settled contexts, one batch at a time, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from celery_stargate.delivery.in_flight import InFlight
from celery_stargate.delivery.owned import OwnedLane
from celery_stargate.lanes.record import Settled, done_of
from celery_stargate.model.entry import label_of

__all__ = ["EffectsQueue"]

#: How many contexts one round in the effects' thread has at most.
_BATCH = 100


class EffectsQueue:
    """The settled contexts of one lane whose effects are to be done.

    Arguments:
        lane: whose they are.
        in_flight: is told to wait for their receipts no more.
    """

    def __init__(self, lane: OwnedLane, in_flight: InFlight) -> None:
        self._lane = lane
        self._in_flight = in_flight
        self._queue: asyncio.Queue[Settled] = asyncio.Queue()
        #: Contexts that are queued or being done, each with its first number.
        self._known: set[tuple[str, int]] = set()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, settled: Iterable[Settled]) -> None:
        """Queue contexts; one that is here already is left out."""
        for each in settled:
            context, first = each.identity
            if each.identity not in self._known:
                self._known.add(each.identity)
                self._queue.put_nowait(each)
            count = len(each.outcomes)
            places = range(count) if count > 1 else (-1,)
            self._in_flight.forget(
                (label_of(context, place), first + max(place, 0)) for place in places
            )

    async def run(self) -> None:
        """Do the effects of what is queued, until cancelled.

        Raises:
            Whatever redis-py raises, except that Redis is not available.
        """
        while True:
            batch = [await self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            done = await self.perform(batch)
            if done:
                await self._lane.retry.until_available(self._lane.store.finish, done)
            self._known.difference_update(each.identity for each in batch)
            self._lane.changes.notify()

    async def perform(self, settled: Sequence[Settled]) -> list[Settled]:
        """Do the effects of some contexts in the thread; return those that are done."""
        services = self._lane.shared.services
        loop = asyncio.get_running_loop()
        names = await loop.run_in_executor(services.executor, services.effects.run, settled)
        return done_of(settled, names)
