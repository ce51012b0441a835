"""Own one lane: send its messages, settle them, do their effects, and keep its lease."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from celery_stargate.delivery.effects_queue import EffectsQueue
from celery_stargate.delivery.in_flight import InFlight
from celery_stargate.delivery.keeper import Keeper, UnreadBacklog
from celery_stargate.delivery.lease import Lease
from celery_stargate.delivery.owned import OwnedLane
from celery_stargate.delivery.retry import Retry
from celery_stargate.delivery.sender import Sender
from celery_stargate.delivery.settler import Settler
from celery_stargate.delivery.shared import Shared
from celery_stargate.delivery.states import Event, State, lane_machine
from celery_stargate.delivery.telling import Telling
from celery_stargate.lanes.leased import Fenced, LeasedLane, StoreRolledBack
from celery_stargate.model.options import ProducerOptions
from celery_stargate.pulsar.session import Counters
from celery_stargate.pulsar.window import Window
from celery_stargate.support.cancel import cancel_all
from celery_stargate.support.log import logger_of

__all__ = ["LaneOwner"]

logger = logger_of(__name__)


class LaneOwner:
    """Owns a lane from when its lease was taken until it is released or lost.

    It makes the parts and runs them beside one another: the keeper, the settler, the effects and,
    where the lane has messages, the sender.

    Arguments:
        store: the lane in Redis, its lease taken.
        options: of the lane's topic.
        shared: among the owners of this process.
    """

    def __init__(self, store: LeasedLane, options: ProducerOptions, shared: Shared) -> None:
        name = store.lane.name
        lane = OwnedLane(
            store,
            options,
            shared,
            lane_machine(name),
            Retry(name, shared.rng.uniform),
            Telling(
                store.lane,
                shared.monotonic,
                2 * options.window_size,
                shared.settings.url,
                shared.settings.dead_letter_rules,
            ),
        )
        self._lane = lane
        self._lease = Lease(name, shared.settings.lease, shared.monotonic)
        self._in_flight = InFlight(Window(options.window_size, options.max_in_flight_bytes))
        self._effects = EffectsQueue(lane, self._in_flight)
        self._settler = Settler(lane, self._in_flight, self._effects)
        self._keeper = Keeper(lane, self._lease, self._in_flight, self._effects, self._at_rest)
        self._sender: Sender | None = None
        if store.lane.has_messages:
            self._sender = Sender(lane, self._lease, self._in_flight, self._settler, self._effects)
        self._stopping = asyncio.Event()

    @property
    def name(self) -> str:
        """The lane's name."""
        return self._lane.name

    @property
    def counters(self) -> Counters:
        """What was counted, over all connections."""
        return self._lane.counters

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits in the lane, as far as the owner knows."""
        return self._keeper.found_nothing and not self._busy

    @property
    def descriptor(self) -> int | None:
        """The file descriptor of the lane's socket, where it has one."""
        return self._in_flight.descriptor

    async def run(self) -> None:
        """Own the lane; return when it is released, lost, or must be read from its beginning.

        Raises:
            Whatever redis-py raises, except that Redis is not available.
        """
        work: list[Coroutine[Any, Any, None]] = [
            self._keeper.run(),
            self._settler.run(),
            self._effects.run(),
        ]
        if self._sender is not None:
            work.append(self._sender.run())
        tasks = [asyncio.ensure_future(each) for each in work]
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for each in done - {stopping}:
                each.result()
        except (Fenced, UnreadBacklog, StoreRolledBack) as error:
            await cancel_all([*tasks, stopping])
            await self._end(error)
            await self._settler.hand_in()
        finally:
            self._lane.machine.apply(Event.RELEASED)
            self._lane.changes.notify()
            await cancel_all([*tasks, stopping])

    async def drain(self, timeout: float) -> None:
        """Send nothing new, wait for what is in flight, and give the lane back.

        Arguments:
            timeout: seconds to wait at most; what has no receipt by then is the next owner's.
        """
        machine, store = self._lane.machine, self._lane.store
        machine.apply(Event.DRAIN)
        # A put must not mark a message any more: the source may still wait, but takes none.
        store.expected = 0
        ending = asyncio.ensure_future(self._lane.retry.until_available(store.expect_nothing))
        try:
            async with asyncio.timeout(timeout):
                await self._lane.changes.until(lambda: not self._busy)
        except TimeoutError:
            logger.warning(
                "%d messages without a receipt are left to the next owner",
                len(self._in_flight),
                lane=self.name,
            )
        finally:
            # When the lease is released, nothing is marked anyway.
            await cancel_all([ending])
        machine.apply(Event.DRAINED)
        self._stopping.set()

    @property
    def _busy(self) -> bool:
        """Whether something is under way that the next owner would have to do again."""
        state = self._lane.machine.state
        under_way = len(self._in_flight) or len(self._settler) or len(self._effects)
        return state is not State.STOPPED and bool(
            state is State.LAST_BATCH or under_way or self._in_flight.misaligned
        )

    def _at_rest(self) -> bool:
        """Whether all messages of the log were read and have their outcomes."""
        caught_up = self._lane.machine.state is State.CAUGHT_UP
        return caught_up and not len(self._in_flight) and not len(self._settler)

    async def _end(self, error: Exception) -> None:
        """Log why the ownership ends, and prepare the lane for its next owner."""
        if isinstance(error, Fenced):
            self._lease.taken()
            logger.warning("another owner has it now", lane=self.name)
        elif isinstance(error, UnreadBacklog):
            logger.warning(
                "settled messages are in the lane again, because Redis came back with an older "
                "state; the lane is read again",
                lane=self.name,
            )
        else:
            logger.error(
                "Redis came back with an older state: what it forgot is lost or comes twice",
                lane=self.name,
            )
            # What Redis knows to have been sent goes again under its own name, and is not stored
            # twice. New messages wait for a new one: Redis may give them numbers that were used.
            with suppress(Fenced):
                await self._lane.retry.until_available(self._lane.store.disown_generation)
