"""Inboxes: where a process that waits for outcomes gets them."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from celery_stargate.errors import StoreUnavailable
from celery_stargate.lanes.inbox import Inboxes
from celery_stargate.lanes.wire import decode_call
from celery_stargate.model.outcome import error_of
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.log import logger

__all__ = ["Inbox", "Ticket"]

#: How long one look into the inbox blocks, in seconds.
_LOOK = 1.0


def _future() -> Future[Any]:
    future: Future[Any] = Future()
    # A caller cannot take back what is on its way; cancel() says so by returning False.
    future.set_running_or_notify_cancel()
    return future


@dataclass(slots=True, eq=False)
class Ticket:
    """One wait for one outcome."""

    #: What a record names: the inbox, and this ticket in it. A repeated outcome of an earlier wait
    #: has another.
    address: str
    #: The receipt, the list of receipts, or the error.
    future: Future[Any] = field(default_factory=_future)
    #: When the one who waits must see to the deadline (monotonic), and how; None: somebody does.
    overdue: tuple[float, Callable[[], None]] | None = None


class Inbox:
    """One stream in Redis, and those in this process who wait for it.

    A thread reads the stream while anyone waits, and ends when nobody does. What it reads stays
    there until the next look, so that an answer of Redis that was lost is read again.
    """

    def __init__(self, inboxes: Inboxes, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.name = uuid.uuid4().hex
        self._inboxes = inboxes
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        #: By address.
        self._waiting: dict[str, Ticket] = {}
        self._thread: threading.Thread | None = None
        self._read_up_to = "0-0"

    def expect(self, overdue: tuple[float, Callable[[], None]] | None = None) -> Ticket:
        """Return a ticket for an outcome that is to be asked for by its address."""
        ticket = Ticket(f"{self.name}/{next(self._numbers)}", overdue=overdue)
        with self._lock:
            self._waiting[ticket.address] = ticket
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._read, name="stargate-inbox", daemon=True
                )
                self._thread.start()
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Wait no more with a ticket."""
        with self._lock:
            self._waiting.pop(ticket.address, None)

    def deliver(self, address: str, call: CallOutcomes) -> None:
        """Release the one who waits with a ticket, if anyone does."""
        with self._lock:
            ticket = self._waiting.pop(address, None)
        if ticket is not None:
            _release(ticket.future, call)

    def _read(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                waiting = list(self._waiting.values())
            for ticket in waiting:
                self._see_to(ticket)
            try:
                found = self._inboxes.subscribe(self.name, self._read_up_to, _LOOK)
            except StoreUnavailable as error:
                logger.warning("waiting for outcomes: %s", error)
                time.sleep(0.5)
                continue
            for entry, address, wire in found:
                self._read_up_to = entry
                self._open(address, wire)

    def _see_to(self, ticket: Ticket) -> None:
        if ticket.overdue is None:
            return
        moment, settle = ticket.overdue
        now = self._monotonic()
        if now >= moment:
            ticket.overdue = now + _LOOK, settle
            settle()

    def _open(self, address: str, wire: bytes) -> None:
        try:
            call = decode_call(wire)
        except ValueError as error:
            logger.error("an outcome for %s cannot be read: %s", address, error)
            return
        self.deliver(address, call)


def _release(future: Future[Any], call: CallOutcomes) -> None:
    if call.failed:
        future.set_exception(error_of(call.failure))
    else:
        future.set_result(call.answer())
