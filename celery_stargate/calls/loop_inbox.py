"""The inbox of one event loop: one of the calls that wait there reads it, for all of them."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Sequence
from typing import Protocol

from celery_stargate.calls.gathering import Gathered
from celery_stargate.errors import StoreUnavailable
from celery_stargate.lanes.inbox import InboxEntry
from celery_stargate.lanes.wire import decode_call
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.alarms import Alarms
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

__all__ = ["LoopInbox", "LoopTicket"]

logger = logger_of(__name__)

#: How long one look into the inbox blocks, in seconds.
_LOOK = 1.0
#: Seconds to wait after a look that failed.
_PAUSE = 0.5


class Subscriber(Protocol):
    """Where a loop's outcomes come from: the loop's outbox."""

    async def subscribe(
        self, inbox: str, handled: Sequence[str], timeout: float
    ) -> list[InboxEntry]:
        """Wait for outcomes."""


class LoopTicket:
    """One wait of one call.

    Arguments:
        address: what a record names: the inbox, and this ticket in it.
        gathered: takes the outcomes of many contexts; None for one call.
    """

    __slots__ = ("address", "gathered", "outcomes", "waker")

    def __init__(self, address: str, gathered: Gathered | None = None) -> None:
        self.address = address
        self.gathered = gathered
        #: Of one call; None until they are there.
        self.outcomes: CallOutcomes | None = None
        #: Wakes the call that waits, for its outcome or to read the inbox.
        self.waker: asyncio.Future[None] | None = None

    @property
    def done(self) -> bool:
        """Whether all is there that the call waits for."""
        if self.gathered is not None:
            return not self.gathered.missing
        return self.outcomes is not None

    def take(self, call: CallOutcomes) -> None:
        """Take in what arrived; a repeat changes nothing."""
        if self.gathered is not None:
            for outcome in call.outcomes:
                self.gathered.take(outcome)
        elif self.outcomes is None:
            self.outcomes = call

    def wake(self) -> None:
        """Wake the call that waits."""
        if self.waker is not None and not self.waker.done():
            self.waker.set_result(None)


class LoopInbox:
    """One stream in Redis, and the calls of one event loop that wait for its entries.

    No task runs in the background: one of the calls that wait reads for all until its own outcome
    is there, and then another does. So nothing is left when the last call has ended, on any loop.

    Arguments:
        subscriber: reads the stream.
        name: of the stream, by which records name it.
    """

    def __init__(self, subscriber: Subscriber, name: str | None = None) -> None:
        self.name = name or uuid.uuid4().hex
        self._subscriber = subscriber
        self._numbers = itertools.count(1)
        #: By address.
        self._waiting: dict[str, LoopTicket] = {}
        self._reading = False
        self._alarms = Alarms()
        #: The entries that were handled, and that the next look deletes.
        self._handled: list[str] = []
        self._log_unreadable = Seldom()
        self._log_failure = Seldom()

    def expect(self, gathered: Gathered | None = None) -> LoopTicket:
        """Return a ticket for an outcome, or for many."""
        ticket = LoopTicket(f"{self.name}/{next(self._numbers)}", gathered)
        self._waiting[ticket.address] = ticket
        return ticket

    def forget(self, ticket: LoopTicket) -> None:
        """Stop waiting with a ticket."""
        self._waiting.pop(ticket.address, None)

    def deliver(self, address: str, call: CallOutcomes) -> None:
        """Give the call that waits with a ticket what arrived, if there is one."""
        ticket = self._waiting.get(address)
        if ticket is not None:
            ticket.take(call)
            if ticket.done:
                ticket.wake()

    async def wait(self, ticket: LoopTicket, seconds: float) -> bool:
        """Wait for a ticket's outcome, at most so many seconds; return whether it is there."""
        end, waits = time.monotonic() + seconds, True
        try:
            while not ticket.done:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                waits = self._reading
                if waits:
                    await self._woken(ticket, left)
                else:
                    await self._read(min(left, _LOOK))
        finally:
            ticket.waker = None
            if not (waits and ticket.done):
                # It has read, or may have been woken to read.
                self._pass_on()
        return True

    async def _woken(self, ticket: LoopTicket, seconds: float) -> None:
        """Wait until a ticket is woken, at most so many seconds."""
        waker = ticket.waker = asyncio.get_running_loop().create_future()
        self._alarms.begin(ticket, seconds, ticket.wake)
        try:
            await waker
        finally:
            self._alarms.end(ticket)
            ticket.waker = None

    async def _read(self, seconds: float) -> None:
        """Look into the inbox once, whatever the look ends with."""
        self._reading = True
        try:
            handled, self._handled = self._handled, []
            try:
                found = await self._subscriber.subscribe(self.name, handled, seconds)
            except BaseException:
                self._handled = [*handled, *self._handled]
                raise
            for entry, address, wire in found:
                self._handled.append(entry)
                self._open(address, wire)
        except StoreUnavailable as error:
            logger.warning("waiting for outcomes: %s", error)
            await asyncio.sleep(min(seconds, _PAUSE))
        except Exception:  # every waiting call of the loop needs it
            if self._log_failure():
                logger.exception("waiting for outcomes failed; it is tried again and again")
            await asyncio.sleep(min(seconds, _PAUSE))
        finally:
            self._reading = False

    def _pass_on(self) -> None:
        """Let another call read that waits, if nobody does."""
        if not self._reading:
            for ticket in self._waiting.values():
                if ticket.waker is not None and not ticket.done:
                    ticket.wake()
                    return

    def _open(self, address: str, wire: bytes) -> None:
        try:
            call = decode_call(wire)
        except ValueError as error:
            if self._log_unreadable():
                logger.error(
                    "an entry of this event loop's inbox could not be read and is skipped; it is "
                    "for %r: %s",
                    address,
                    error,
                )
            return
        self.deliver(address, call)
