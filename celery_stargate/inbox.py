"""Inboxes: where a process that waits for outcomes gets them."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import Future
from typing import Any

import msgspec

from .errors import StoreUnavailable
from .lanes.caller import Lanes
from .lanes.record import Record, Settled
from .log import logger
from .outcome import Failure, Outcome, Receipt

__all__ = ["Inbox"]

_decoder = msgspec.json.Decoder(list[Receipt | Failure])


class Inbox:
    """One list in Redis, and the futures of those in this process who wait for it.

    A thread reads the list while anyone waits, and ends when nobody does.
    """

    def __init__(self, lanes: Lanes) -> None:
        self.name = uuid.uuid4().hex
        self._lanes = lanes
        self._lock = threading.Lock()
        #: In the order of their calls: a second call for a context gets the second outcome, if any.
        self._waiting: dict[str, list[Future[Any]]] = {}
        self._thread: threading.Thread | None = None

    def expect(self, context: str) -> Future[Any]:
        """Return the future of a context: its receipt, list of receipts, or error."""
        future: Future[Any] = Future()
        # A caller cannot take back what is on its way; cancel() says so by returning False.
        future.set_running_or_notify_cancel()
        with self._lock:
            self._waiting.setdefault(context, []).append(future)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._read, name="stargate-inbox", daemon=True
                )
                self._thread.start()
        return future

    def forget(self, context: str, future: Future[Any]) -> None:
        """Wait for a context no more, with this future; others may."""
        with self._lock:
            waiting = self._waiting.get(context, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(context, None)

    def deliver(self, settled: Settled) -> None:
        """Release the one who waits for a context here, if anyone does."""
        context = settled.record.context
        with self._lock:
            waiting = self._waiting.get(context)
            future = waiting.pop(0) if waiting else None
            if not waiting:
                self._waiting.pop(context, None)
        if future is not None:
            _release(future, settled)

    def _read(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
            try:
                found = self._lanes.listen(self.name, timeout=1.0)
            except StoreUnavailable as error:
                logger.warning("waiting for outcomes: %s", error)
                time.sleep(0.5)
                continue
            if found is not None:
                self._open(*found)

    def _open(self, context: str, wire: bytes) -> None:
        try:
            outcomes: tuple[Outcome, ...] = tuple(_decoder.decode(wire[1:]))
        except msgspec.DecodeError as error:
            logger.error("an outcome of context %s cannot be read: %s", context, error)
            return
        self.deliver(Settled(Record(context, is_list=wire[:1] == b"1"), outcomes))


def _release(future: Future[Any], settled: Settled) -> None:
    from .task import error_of

    if settled.failed:
        future.set_exception(error_of(settled.failure))
    elif settled.record.is_list:
        future.set_result(list(settled.outcomes))
    else:
        future.set_result(settled.outcomes[0])
