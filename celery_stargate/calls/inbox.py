"""Inboxes: where a process that waits for outcomes gets them."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from celery_stargate.calls.waiting import Waiting
from celery_stargate.errors import ProduceError, StoreUnavailable
from celery_stargate.lanes.inbox import Inboxes
from celery_stargate.lanes.wire import decode_call
from celery_stargate.model.outcomes import CallOutcomes, Receipts
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom
from celery_stargate.support.waker import Waker

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
    #: Wakes the thread that waits: its outcome is there, or it is to read the inbox.
    waker: Waker = field(default_factory=Waker)


@dataclass(slots=True, eq=False)
class _Reader:
    """A thread that reads the inbox now."""

    thread: int = field(default_factory=threading.get_ident)


class Inbox:
    """One stream in Redis, and the callers in this process that wait for its entries.

    One of the threads that wait reads the stream for all, until its own outcome is there; then
    another does. For futures, for which no thread of a call waits, the inbox has a thread, which
    ends with the last one. An entry stays in the stream until the next read, so that an answer of
    Redis that was lost is read again.

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
        #: By address; those for which the inbox's thread reads are also among the futures.
        self._waiting: dict[str, Ticket] = {}
        self._futures: dict[str, Ticket] = {}
        #: Who reads now; at most one.
        self._turn: dict[None, _Reader] = {}
        #: Wakes the inbox's thread: it is to read.
        self._waker = Waker()
        self._thread: threading.Thread | None = None
        #: The entries that were handled, and that the next look deletes.
        self._handled: list[str] = []
        #: How many entries could not be read, and whether to log that now.
        self._unreadable = 0
        self._log_unreadable = Seldom()
        self._log_failure = Seldom()

    def begin(self) -> Ticket:
        """Return a ticket for an outcome for which the calling thread is to :meth:`wait`."""
        ticket = Ticket(f"{self.name}/{next(self._numbers)}")
        self._waiting[ticket.address] = ticket
        return ticket

    def expect(self, waiting: Waiting | None = None) -> Ticket:
        """Return a ticket for an outcome for which nobody has to :meth:`wait`.

        Arguments:
            waiting: enforces the deadline; None where the caller's own thread does.

        Raises:
            RuntimeError: the inbox's thread cannot be started now.
        """
        ticket = self.begin()
        ticket.waiting = waiting
        self._futures[ticket.address] = ticket
        thread = self._thread
        if thread is None or (thread.ident is not None and not thread.is_alive()):
            self._thread = thread = threading.Thread(
                target=self._read, name="stargate-inbox", daemon=True
            )
            try:
                thread.start()
            except BaseException:
                # The system has too many, or a signal handler raised.
                if thread.ident is None and self._thread is thread:
                    self._thread = None
                self.forget(ticket)
                raise
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Stop waiting with a ticket."""
        self._waiting.pop(ticket.address, None)
        self._futures.pop(ticket.address, None)

    def wait(self, ticket: Ticket, seconds: float) -> bool:
        """Wait in this thread, at most ``seconds``; return whether the outcome is there.

        Meanwhile this thread reads the inbox for all who wait, if no other does.

        Raises:
            What is raised in this thread: by a signal's handler, such as Celery's for the soft time
            limit. Another one that waits reads on.
        """
        end, mine = time.monotonic() + seconds, _Reader()
        try:
            while True:
                # Before the look: what arrives after it sets the waker again.
                ticket.waker.clear()
                if ticket.future.done():
                    return True
                left = min(end - time.monotonic(), _LOOK)
                if left <= 0:
                    return False
                reader = self._turn.setdefault(None, mine)
                if reader is mine:
                    self._read_in_turn(mine, left)
                elif reader.thread == mine.thread:
                    # A signal's handler, which interrupts the one that reads.
                    _pausing(partial(self._look, left, delete=False))
                else:
                    ticket.waker.wait(left)
        finally:
            # A handler may have raised when the turn had just begun.
            self._end_turn(mine)
            self._pass_on(ticket)

    def deliver(self, address: str, call: CallOutcomes) -> None:
        """Release the caller that waits with a ticket, if there is one."""
        ticket = self._waiting.get(address)
        if ticket is not None:
            _release(ticket.future, call)
            ticket.waker.set()
            # Not before: a signal's handler that raises must not take another's outcome away.
            self.forget(ticket)

    def _read(self) -> None:
        """Read until no future is left, whatever one look into the inbox ends with."""
        here = threading.current_thread()
        while self._thread is here:
            futures = list(self._futures.values())
            if not futures:
                self._thread = None
                # A call that began to wait just now found this thread, and started none.
                if self._futures and self._thread is None:
                    self._thread = here
                continue
            self._guarded(partial(self._enforce_all, futures))
            self._waker.clear()
            mine = _Reader()
            if self._turn.setdefault(None, mine) is mine:
                self._guarded(partial(self._read_in_turn, mine, _LOOK))
            else:
                self._waker.wait(_LOOK)
        self._pass_on()

    def _read_in_turn(self, reader: _Reader, seconds: float) -> None:
        try:
            _pausing(partial(self._look, seconds))
        finally:
            self._end_turn(reader)

    def _end_turn(self, reader: _Reader) -> None:
        if self._turn.get(None) is reader:
            self._turn.pop(None, None)

    def _pass_on(self, mine: Ticket | None = None) -> None:
        """Let another thread read that waits, if nobody does.

        Arguments:
            mine: the ticket of this thread, which waits no more.
        """
        if self._turn:
            return
        if self._thread is not None:
            self._waker.set()
            return
        for ticket in list(self._waiting.values()):
            if ticket is not mine and not ticket.waker.is_set():
                ticket.waker.set()
                return

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do a step in the inbox's thread, and pause after it if it fails."""
        try:
            _pausing(step)
        except Exception:  # every future of the process needs it
            if self._log_failure():
                logger.exception("waiting for outcomes failed; it is tried again and again")
            time.sleep(_PAUSE)

    def _look(self, seconds: float, *, delete: bool = True) -> None:
        """Deliver what has arrived.

        Arguments:
            seconds: to wait for it at most.
            delete: whether the entries are to be deleted; else they are read again.
        """
        found = self._inboxes.subscribe(self.name, self._handled if delete else (), seconds)
        if delete:
            self._handled = []
        for entry, told in found:
            for address, wire in told:
                self._open(address, wire)
            if delete:
                self._handled.append(entry)

    def _enforce_all(self, tickets: Iterable[Ticket]) -> None:
        """Enforce the deadlines of futures."""
        for ticket in tickets:
            self._enforce(ticket)

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


def _pausing(step: Callable[[], None]) -> None:
    """Do a step, and pause after it if Redis does not answer."""
    try:
        step()
    except StoreUnavailable as error:
        logger.warning("waiting for outcomes: %s", error)
        time.sleep(_PAUSE)


def _release(future: Future[Receipts], call: CallOutcomes) -> None:
    # The first outcome stays.
    with suppress(InvalidStateError):
        try:
            future.set_result(call.answer())
        except ProduceError as error:
            future.set_exception(error)
