"""``stargate_url = "memory://"``: topics in this process, for unit tests; no server, no thread."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable

import msgspec

from celery_stargate.calls.prepare import Call
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.frame import text_frame
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.pulsar.message_id import MessageId

__all__ = ["Memory", "MemoryMessage"]

_LEDGER = 1


class MemoryMessage(msgspec.Struct, frozen=True):
    """A message that a test's code produced.

    Example:
        >>> with in_memory(app) as pulsar:
        ...     receipt = stargate.produce(("order-17", "one lamp"), topic="orders")
        ...     [message] = pulsar.messages("orders")
        >>> message.key, message.payload
        ('order-17', b'one lamp')
    """

    #: The topic's full name.
    topic: str
    #: The payload, decoded.
    payload: bytes
    #: The key; None without one.
    key: str | None
    #: Its properties.
    properties: dict[str, str]
    #: The id that its receipt has.
    context: str
    #: The message id that its receipt has.
    message_id: str
    #: ISO text, as Pulsar gets it.
    event_time: str | None = None
    #: Milliseconds since 1970, if it is to be delivered then.
    deliver_at_ms: int | None = None
    #: Milliseconds, if it is to be delivered after that time.
    deliver_after_ms: int | None = None


class _Frame(msgspec.Struct, rename="camel"):
    payload: bytes
    key: str | None = None
    properties: dict[str, str] = {}
    event_time: str | None = None
    deliver_at: int | None = None
    deliver_after_ms: int | None = None


_decoder = msgspec.json.Decoder(_Frame)


class Memory:
    """Keeps messages in memory, and answers with receipts, or with the failures that it is told."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._messages: list[MemoryMessage] = []
        self._entries = itertools.count()
        self._failures: deque[tuple[str, str]] = deque()
        self._held: list[Callable[[], object]] | None = None

    # -- for tests ------------------------------------------------------------------------------

    @property
    def messages(self) -> tuple[MemoryMessage, ...]:
        """All messages, in the order in which they were produced."""
        with self._lock:
            return tuple(self._messages)

    @property
    def holding(self) -> bool:
        """Whether receipts are held."""
        return self._held is not None

    def clear(self) -> None:
        """Forget all messages, failures to come, and held receipts."""
        with self._lock:
            self._messages.clear()
            self._failures.clear()
            self._held = None

    def fail_next(self, code: str, reason: str, count: int = 1) -> None:
        """Fail the next messages.

        Arguments:
            code: of their failure; with ``deadline`` a message is stored, and its receipt is lost.
            reason: of their failure.
            count: how many messages fail.
        """
        with self._lock:
            self._failures.extend([(code, reason)] * count)

    def hold(self) -> None:
        """Hold receipts: callbacks run in :meth:`release`; a call that waits passes its deadline.

        Nothing waits in fact: no time passes in memory.
        """
        with self._lock:
            if self._held is None:
                self._held = []

    def release(self) -> None:
        """Run the callbacks of the held receipts in this thread, in order, and hold no more.

        Each runs, as in production, whatever those before it raise.

        Raises:
            What a callback raised; of several an ``ExceptionGroup``.
        """
        with self._lock:
            held, self._held = self._held, None
        errors = []
        for call_back in held or ():
            try:
                call_back()
            except Exception as error:  # noqa: BLE001  # the test gets it, after the others
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup("several callbacks failed", errors)

    # -- for callers ----------------------------------------------------------------------------

    def publish(self, call: Call) -> tuple[Outcome, ...]:
        """Keep a call's messages, and return the outcome of each, in order."""
        several = len(call.parts) > 1
        with self._lock:
            return tuple(
                # The label of a list's message is the call's id and its place.
                self._store(
                    call, part.label.removesuffix(f"\t{place}" if several else ""), part.frame
                )
                for place, part in enumerate(call.parts)
            )

    def defer(self, call_back: Callable[[], object]) -> bool:
        """Leave a callback to :meth:`release`, and return whether receipts are held."""
        with self._lock:
            if self._held is None:
                return False
            self._held.append(call_back)
            return True

    def _store(self, call: Call, context: str, frame: bytes) -> Outcome:
        topic = str(call.topic)
        code, reason = self._failures.popleft() if self._failures else ("", "")
        if code and code != "deadline":
            return Failure(context=context, topic=topic, code=code, reason=reason)
        read = _decoder.decode(text_frame(frame))
        entry = next(self._entries)
        message_id = MessageId(_LEDGER, entry).encode()
        self._messages.append(
            MemoryMessage(
                topic,
                read.payload,
                read.key,
                read.properties,
                context,
                message_id,
                read.event_time,
                read.deliver_at,
                read.deliver_after_ms,
            )
        )
        if code:
            return deadline_failure(context, topic, sent=True)
        return Receipt(
            context=context,
            topic=topic,
            status="stored" if call.topic.persistent else "transient",
            message_id=message_id,
            ledger_id=_LEDGER,
            entry_id=entry,
            partition=-1,
            batch_index=-1,
        )
