"""Inboxes: where a process that waits for outcomes gets them."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from celery_stargate.calls.waiting import Waiting
from celery_stargate.errors import ProduceError, StoreUnavailable
from celery_stargate.lanes.inbox import Inboxes
from celery_stargate.lanes.wire import decode_call
from celery_stargate.model.outcomes import CallOutcomes, Receipts
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

__all__ = ["Inbox", "Ticket"]

logger = logger_of(__name__)

#: How long one look into the inbox blocks, in seconds.
_LOOK = 1.0
#: Seconds to wait after a look that failed.
_PAUSE = 0.5


def _future() -> Future[Any]:
    future: Future[Any] = Future()
    # A caller cannot take back a recorded message; so cancel() returns False.
    future.set_running_or_notify_cancel()
    return future


@dataclass(slots=True, eq=False)
class Ticket:
    """One wait for one outcome."""

    #: What a record names: the inbox, and this ticket in it. An outcome that is repeated for an
    #: earlier wait has another address.
    address: str
    #: The receipt, the list of receipts, or the error.
    future: Future[Any] = field(default_factory=_future)
    #: Enforces the deadline from the inbox's thread; None: the waiting thread enforces it.
    waiting: Waiting | None = None


class Inbox:
    """One stream in Redis, and the callers in this process that wait for its entries.

    A thread reads the stream while there is a waiting caller, and ends when there is none. An entry
    stays in the stream until the next read, so that an answer of Redis that was lost is read again.

    There is no lock: a signal's handler that publishes would wait for the thread that reads, which
    would wait for a lock of the call that the signal interrupted. Each step is one step of a dict.

    Arguments:
        inboxes: in Redis.
        name: of this one, by which records name it; by default one that nobody has.
    """

    def __init__(self, inboxes: Inboxes, name: str | None = None) -> None:
        self.name = name or uuid.uuid4().hex
        self._inboxes = inboxes
        self._numbers = itertools.count(1)
        #: By address.
        self._waiting: dict[str, Ticket] = {}
        self._thread: threading.Thread | None = None
        #: The entries that were handled, and that the next look deletes.
        self._handled: list[str] = []
        #: How many entries could not be read, and whether to log that now.
        self._unreadable = 0
        self._log_unreadable = Seldom()
        self._log_failure = Seldom()

    def expect(self, waiting: Waiting | None = None) -> Ticket:
        """Return a ticket for an outcome that is to be asked for by its address.

        Arguments:
            waiting: enforces the deadline; None where the caller's own thread does.
        """
        ticket = Ticket(f"{self.name}/{next(self._numbers)}", waiting=waiting)
        self._waiting[ticket.address] = ticket
        thread = self._thread
        if thread is None or (thread.ident is not None and not thread.is_alive()):
            self._thread = thread = threading.Thread(
                target=self._read, name="stargate-inbox", daemon=True
            )
            thread.start()
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Stop waiting with a ticket."""
        self._waiting.pop(ticket.address, None)

    def deliver(self, address: str, call: CallOutcomes) -> None:
        """Release the caller that waits with a ticket, if there is one."""
        ticket = self._waiting.pop(address, None)
        if ticket is not None:
            _release(ticket.future, call)

    def _read(self) -> None:
        """Read until nobody waits, whatever one look into the inbox ends with."""
        here = threading.current_thread()
        while self._thread is here:
            waiting = list(self._waiting.values())
            if not waiting:
                self._thread = None
                # A call that began to wait just now found this thread, and started none.
                if self._waiting and self._thread is None:
                    self._thread = here
                continue
            try:
                self._look(waiting)
            except StoreUnavailable as error:
                logger.warning("waiting for outcomes: %s", error)
                time.sleep(_PAUSE)
            except Exception:  # every waiting call of the process needs this thread
                if self._log_failure():
                    logger.exception("waiting for outcomes failed; it is tried again and again")
                time.sleep(_PAUSE)

    def _look(self, waiting: Sequence[Ticket]) -> None:
        """Enforce the deadlines of those who wait, and deliver what has arrived."""
        for ticket in waiting:
            self._enforce(ticket)
        found = self._inboxes.subscribe(self.name, self._handled, _LOOK)
        self._handled = []
        for entry, address, wire in found:
            self._handled.append(entry)
            self._open(address, wire)

    def _enforce(self, ticket: Ticket) -> None:
        if ticket.waiting is None:
            return
        try:
            ticket.waiting.check()
        except StoreUnavailable:
            raise
        except Exception:  # the others that wait have their own deadlines
            if self._log_failure():
                logger.exception("the deadline of %s could not be enforced", ticket.address)

    def _open(self, address: str, wire: bytes) -> None:
        try:
            call = decode_call(wire)
        except ValueError as error:
            self._unreadable += 1
            if self._log_unreadable():
                logger.error(
                    "%d entries of this process's inbox could not be read and are skipped; the "
                    "last one is for %r: %s",
                    self._unreadable,
                    address,
                    error,
                )
            return
        self.deliver(address, call)


def _release(future: Future[Receipts], call: CallOutcomes) -> None:
    try:
        future.set_result(call.answer())
    except ProduceError as error:
        future.set_exception(error)
