"""The inbox of one event loop: one of the calls that wait there reads it, for all of them."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import Sequence
from typing import Protocol

from celery.exceptions import SoftTimeLimitExceeded

from celery_stargate.calls.gathering import Gathered
from celery_stargate.errors import StoreUnavailable
from celery_stargate.lanes.inbox import InboxEntry
from celery_stargate.lanes.waiter import Waiter
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


class LoopTicket(Waiter):
    """One wait of one call: for what comes of its put, if it is on its way, and for its outcome.

    Arguments:
        inbox: where the outcome arrives.
        address: what a record names: the inbox, and this ticket in it.
        gathered: takes the outcomes of many contexts; None for one call.
        on_its_way: whether the call is being recorded; else it is recorded, or is going to be
            before it waits.
    """

    __slots__ = ("address", "error", "gathered", "inbox", "is_late", "outcomes", "waker")

    def __init__(
        self, inbox: LoopInbox, address: str, gathered: Gathered | None, on_its_way: bool
    ) -> None:
        super().__init__(on_its_way=on_its_way)
        self.inbox = inbox
        self.address = address
        self.gathered = gathered
        #: Whether its pause is over while it is on its way.
        self.is_late = False
        #: Why the call was not recorded.
        self.error: BaseException | None = None
        #: Of one call; None until they are there.
        self.outcomes: CallOutcomes | None = None
        #: Wakes the call that waits, for its outcome or to read the inbox.
        self.waker: asyncio.Future[None] | None = None

    @property
    def missing(self) -> int:
        """How many outcomes are not there yet."""
        return int(self.outcomes is None) if self.gathered is None else self.gathered.missing

    @property
    def done(self) -> bool:
        """Whether all is there that the call waits for."""
        if self.gathered is None:
            return self.outcomes is not None
        return not self.gathered.missing

    def go_on(self, first: int) -> None:
        """Wait for the outcome from now on."""
        if self.is_late:
            self.wake()
        else:
            self.inbox.need_reader(self)

    def fail(self, error: BaseException) -> None:
        """Let the call raise an error."""
        self.error = error
        self.wake()

    def take(self, call: CallOutcomes) -> None:
        """Take in what arrived; a repeat changes nothing. What has an outcome is recorded."""
        if self.on_its_way:
            self.error = self.end(None)
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
        #: The ticket of the call that was woken to read, until it does.
        self._next_reader: LoopTicket | None = None
        self._alarms = Alarms(LoopTicket.wake)
        #: The entries that were handled, and that the next look deletes.
        self._handled: list[str] = []
        self._log_unreadable = Seldom()
        self._log_failure = Seldom()

    def expect(self, gathered: Gathered | None = None, *, on_its_way: bool = False) -> LoopTicket:
        """Return a ticket for an outcome, or for many.

        Arguments:
            gathered, on_its_way: as :class:`LoopTicket` takes them.
        """
        ticket = LoopTicket(self, f"{self.name}/{next(self._numbers)}", gathered, on_its_way)
        self._waiting[ticket.address] = ticket
        return ticket

    def forget(self, ticket: LoopTicket) -> None:
        """Stop waiting with a ticket."""
        ticket.on_its_way = False
        self._waiting.pop(ticket.address, None)

    @property
    def is_waited_for(self) -> bool:
        """Whether a call waits for an outcome."""
        return bool(self._waiting)

    def deliver(self, address: str, call: CallOutcomes) -> None:
        """Give the call that waits with a ticket what arrived, if there is one."""
        ticket = self._waiting.get(address)
        if ticket is not None:
            ticket.take(call)
            if ticket.done:
                ticket.wake()

    def need_reader(self, ticket: LoopTicket) -> None:
        """Let a call read that waits, if nobody does."""
        if not self._has_reader and ticket.waker is not None:
            self._next_reader = ticket
            ticket.wake()

    async def wait(self, ticket: LoopTicket, seconds: float) -> bool:
        """Wait for a ticket's outcome, at most ``seconds``; return whether it is there.

        A call that is on its way waits until it is recorded, however long that takes.

        Raises:
            What the ticket is told instead.
        """
        end, has_turn = time.monotonic() + seconds, False
        try:
            while ticket.error is None and not ticket.done:
                left = end - time.monotonic()
                if ticket.on_its_way or (self._reading and left > 0):
                    waker = ticket.waker = asyncio.get_running_loop().create_future()
                    ticket.is_late = left <= 0
                    if not ticket.is_late:
                        self._alarms.begin(ticket, left)
                    await waker
                elif left <= 0:
                    return False
                else:
                    has_turn = True
                    await self._read(min(left, _LOOK))
        finally:
            self._alarms.end(ticket)
            ticket.waker = None
            if self._next_reader is ticket:
                self._next_reader, has_turn = None, True
            if has_turn:
                self._pass_on()
        if ticket.error is not None:
            raise ticket.error
        return True

    async def _read(self, seconds: float) -> None:
        """Look into the inbox once, whatever the look ends with."""
        self._reading, self._next_reader = True, None
        try:
            handled, self._handled = self._handled, []
            try:
                found = await self._subscriber.subscribe(self.name, handled, seconds)
            except BaseException:
                self._handled = [*handled, *self._handled]
                raise
            for entry, told in found:
                for address, wire in told:
                    self._open(address, wire)
                # Not before: where a signal's handler raises, the rest of it is read again.
                self._handled.append(entry)
        except StoreUnavailable as error:
            logger.warning("waiting for outcomes: %s", error)
            await asyncio.sleep(min(seconds, _PAUSE))
        except SoftTimeLimitExceeded:
            # A signal handler of Celery's raised it in this call's task; another call reads on.
            raise
        except Exception:  # every waiting call of the loop needs it
            if self._log_failure():
                logger.exception("waiting for outcomes failed; it is tried again and again")
            await asyncio.sleep(min(seconds, _PAUSE))
        finally:
            self._reading = False

    def _pass_on(self) -> None:
        """Let another call read that waits, if nobody does."""
        for ticket in self._waiting.values():
            if self._has_reader:
                return
            if not (ticket.on_its_way or ticket.done):
                self.need_reader(ticket)

    @property
    def _has_reader(self) -> bool:
        return self._reading or self._next_reader is not None

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
