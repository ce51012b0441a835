"""Keep a lane while it is owned: renew its lease, apply deadlines, retire it when it is unused."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from celery_stargate import observers
from celery_stargate.delivery.effects_queue import EffectsQueue
from celery_stargate.delivery.in_flight import InFlight
from celery_stargate.delivery.lease import Lease
from celery_stargate.delivery.owned import OwnedLane
from celery_stargate.lanes.leased import LaneTick
from celery_stargate.support.log import logger_of

__all__ = ["Keeper", "UnreadBacklog"]

logger = logger_of(__name__)

#: Seconds after which an empty lane leaves the list of lanes; callers who use one announce it far
#: more often.
RETIRE_AFTER = 3600.0

#: So many renewals in a row must find messages that nobody is about to send.
_UNREAD_TICKS = 2


class UnreadBacklog(Exception):
    """The lane holds messages that were read before: Redis came back with an older state.

    The next owner reads it from its beginning.
    """


class Keeper:
    """Looks at a lane as often as its lease, its deadlines and its effects need it.

    Arguments:
        lane: to keep.
        lease: is told of renewals.
        in_flight: asks again whether it may send, after a renewal.
        effects: gets the contexts whose effects are due.
        at_rest: whether all messages of the log were read and have their outcomes.
    """

    def __init__(
        self,
        lane: OwnedLane,
        lease: Lease,
        in_flight: InFlight,
        effects: EffectsQueue,
        at_rest: Callable[[], bool],
    ) -> None:
        self._lane = lane
        self._lease = lease
        self._in_flight = in_flight
        self._effects = effects
        self._at_rest = at_rest
        self._unread_ticks = 0
        #: Whether the last look at the lane found nothing in it.
        self.found_nothing = False
        self._empty_since = 0.0
        self._retire_after = math.inf

    async def run(self) -> None:
        """Keep the lane until it is retired.

        Raises:
            Fenced: another owner has it.
            StoreRolledBack: Redis came back with an older state.
            UnreadBacklog: the same, seen from what it holds.
        """
        await self._take_over()
        self._begin()
        store, retry, shared = self._lane.store, self._lane.retry, self._lane.shared
        while True:
            tick = await retry.until_available(self._renew)
            self._require_read(tick)
            self.found_nothing = tick.idle
            if tick.contexts:
                self._empty_since = self._lane.shared.monotonic()
            elif self._unused and await self._retire():
                return
            if tick.due:
                self._effects.add(await retry.until_available(store.due))
            if tick.idle:
                until = self._empty_since + self._retire_after
                await shared.renewals.renew_in_background(store, until, self._renewed)
            elif tick.next_deadline is not None and tick.next_deadline <= 0:
                expired = await retry.until_available(store.expire)
                observers.ended(store.lane, expired, shared.settings.dead_letter_rules, "deadline")
                self._effects.add(expired)
            else:
                await asyncio.sleep(self._wait_after(tick))

    def _begin(self) -> None:
        shared = self._lane.shared
        self._empty_since = shared.monotonic()
        # Lanes that become idle together must not all retire at once, each by its own connection.
        retire_after = RETIRE_AFTER + shared.rng.uniform(0.0, RETIRE_AFTER / 10)
        if self._lane.store.lane.has_messages:
            self._retire_after = retire_after

    def _wait_after(self, tick: LaneTick) -> float:
        """Return the seconds until the next look at the lane."""
        third = self._lane.shared.settings.lease / 3
        wait = min(1.0, third) if tick.contexts else third
        return wait if tick.next_deadline is None else min(wait, tick.next_deadline + 0.001)

    async def _take_over(self) -> None:
        """Queue the effects that the last owner left."""
        retry, due = self._lane.retry, self._lane.store.due
        offset = 0
        while found := await retry.until_available(due, offset):
            self._effects.add(found)
            offset += len(found)

    async def _renew(self) -> LaneTick:
        shared = self._lane.shared
        asked_at = shared.monotonic()
        tick = await shared.renewals.tick(self._lane.store)
        self._renewed(asked_at)
        return tick

    def _renewed(self, asked_at: float) -> None:
        self._lease.renewed(asked_at)
        self._in_flight.recheck_lease()

    def _require_read(self, tick: LaneTick) -> None:
        """Raise :class:`UnreadBacklog` if the lane still holds messages that nobody will send."""
        self._unread_ticks = self._unread_ticks + 1 if tick.backlog and self._at_rest() else 0
        if self._unread_ticks > _UNREAD_TICKS:
            raise UnreadBacklog

    @property
    def _unused(self) -> bool:
        """Whether the lane has been empty for so long that it is to be forgotten."""
        return self._lane.shared.monotonic() - self._empty_since > self._retire_after

    async def _retire(self) -> bool:
        """Forget the lane; return whether it is gone."""
        store = self._lane.store
        if await self._lane.retry.until_available(store.retire, RETIRE_AFTER):
            logger.info("unused for long, and retired", lane=store.lane.name)
            return True
        # It was announced, or it holds something: look again as late as the first time.
        self._empty_since = self._lane.shared.monotonic()
        return False
