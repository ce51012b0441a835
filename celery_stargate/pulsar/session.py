"""A session: what happens on one connection. Messages go out in order, replies are matched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from celery_stargate.model.dead_letters import Policy
from celery_stargate.model.entry import Entry
from celery_stargate.model.frame import text_frame
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.judge import FalseOk, SendAgain, is_stored, judge
from celery_stargate.pulsar.link import Blame, LinkBroken
from celery_stargate.pulsar.producer import Producer
from celery_stargate.pulsar.replies import Reply, decode_reply
from celery_stargate.pulsar.sentences import plain
from celery_stargate.pulsar.sequence import (
    Alignment,
    DeduplicationUnavailable,
    Numbered,
    SequenceMismatch,
)
from celery_stargate.pulsar.verdicts import ends_producer
from celery_stargate.pulsar.window import LabelInFlight, Window
from celery_stargate.support.cancel import cancel_all
from celery_stargate.support.changes import Changes
from celery_stargate.support.log import logger_of

__all__ = ["Counters", "Session", "SessionRules", "Source"]

logger = logger_of(__name__)


#: How many messages, and bytes of them, one write takes; one message always.
_WRITE_COUNT = 256
_WRITE_BYTES = 128 * 1024

#: With this many messages in flight, replies are collected this many seconds before they are read:
#: they arrive one by one, and to wake for each costs as much as all other work.
_COALESCE_ABOVE, _COALESCE_DELAY = 500, 0.002


@dataclass(slots=True)
class Counters:
    """What was counted, for a lane or a call."""

    sent: int = 0
    receipts: int = 0
    #: Replies and outcomes that match nothing in flight: a second one, or one that came too late.
    unmatched: int = 0
    #: Replies that are not JSON of the right form.
    malformed: int = 0
    #: Entries of the log that could not be sent and were set aside.
    set_aside: int = 0


class Source(Protocol):
    """Where a session gets what it sends."""

    def next(self, count: int, size: int, /) -> Awaitable[Sequence[Entry]]:
        """Return the next messages in order, as soon as there are any; none to end the session.

        It is called again when all that it returned is in flight.

        Arguments:
            count: how many at most.
            size: bytes of frames at most; one message always.
        """


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What a session needs to decide whether to send, and what a reply means."""

    #: Seconds after which a message without a receipt means that the connection is broken.
    receipt_timeout: float = 60.0
    #: The number of the last message that an earlier session may have sent: if Pulsar refuses one
    #: up to there, an earlier send of it may be stored all the same.
    sent_before: int = 0
    #: Whether messages may be sent now. A process that was paused finds that another may have its
    #: messages. It is asked again after :meth:`Session.recheck`.
    may_send: Callable[[], bool] = lambda: True
    #: Where Pulsar is to know the lane's numbers. The source then gives only messages whose numbers
    #: follow one another.
    numbered: Numbered | None = None
    #: How many messages may be in flight, beside the window's own bound; None for no other bound.
    limit: Callable[[], int | None] = lambda: None
    #: What a message's refusal by Pulsar means.
    policy: Callable[[Failure], Policy] = lambda _: Policy.DEAD
    #: Called with messages before they are written; None if nobody asks.
    on_send: Callable[[Sequence[Entry]], None] | None = None
    #: Called with label and number of a message that is stored, and had its outcome before.
    on_late: Callable[[str, int], None] = lambda _label, _number: None


class Session:
    """Sends what a source gives, and hands over each message's outcome.

    It ends when the source gives nothing more and every message has its outcome. Each connection
    has its own session: receipts are lost with their socket, so the next session sends what has
    none again.

    Arguments:
        producer: an open one.
        topic: for the receipts.
        source: gives messages in the lane's order.
        settle: called with each message and its outcome.
        window: bounds what is in flight.
        rules: by default those of a first session without numbers.
        counters: count what it does; by default its own.
    """

    def __init__(
        self,
        producer: Producer,
        topic: Topic,
        source: Source,
        settle: Callable[[Entry, Outcome], None],
        window: Window,
        rules: SessionRules | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._source = source
        self._settle = settle
        self._window = window
        self._rules = rules or SessionRules()
        self._numbered = self._rules.numbered
        self._alignment = Alignment()
        self._changes = Changes()
        self._misaligned = asyncio.Event()
        #: Whether a message waits for the receipt of another one with its label.
        self._barred = False
        #: The refusal that is to pause the lane, once the session has ended.
        self.pause: Failure | None = None
        self.counters = counters or Counters()

    async def run(self) -> None:
        """Run to the end.

        Raises:
            LinkBroken: the connection broke; what has no outcome is to be sent again.
            SequenceMismatch: Pulsar's sequence ids are not the lane's numbers any more; what has no
                outcome is to be sent again.
            DeduplicationUnavailable: the topic has partitions without lanes of their own.
            Whatever the source raises.
        """
        receiving = asyncio.ensure_future(self._receive())
        sending = asyncio.ensure_future(self._send())
        watching = asyncio.ensure_future(self._watch())
        aligning = asyncio.ensure_future(self._align())
        tasks = [receiving, watching, aligning, sending]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            if self._alignment.lost:
                raise self._alignment.verdict()
        except LinkBroken:
            for entry in self._window:
                self._alignment.unheard(entry.number)
            if self._alignment.lost:
                raise self._alignment.verdict() from None
            raise
        finally:
            await cancel_all(tasks)

    @property
    def misaligned(self) -> bool:
        """Whether the sequence ids may be wrong, so that :meth:`run` is about to raise."""
        return self._alignment.lost

    def recheck(self) -> None:
        """Ask again whether messages may be sent."""
        self._changes.notify()

    def forget(self, messages: Iterable[tuple[str, int]]) -> None:
        """Stop waiting for the receipts of messages that have their outcomes otherwise.

        Arguments:
            messages: label and number of each.
        """
        for label, number in messages:
            if self._window.forget(label, number):
                self._alignment.unheard(number)
        self._changes.notify()

    async def _send(self) -> None:
        window = self._window
        while True:
            count, size = self._room()
            if not count:
                await self._changes.wait()
                continue
            entries = await self._source.next(count, size)
            if not entries:
                break
            for some in _writes(entries):
                await self._write(some)
        await self._changes.until(lambda: not len(window))

    def _room(self) -> tuple[int, int]:
        """How many messages, and how many bytes, may be sent now."""
        count, size = self._window.room
        limit = self._rules.limit()
        return count if limit is None else max(0, min(count, limit - len(self._window))), size

    async def _write(self, entries: Sequence[Entry]) -> None:
        """Send messages; one whose label is in flight waits for the other's receipt."""
        window, may_send = self._window, self._rules.may_send
        while entries:
            if self._alignment.lost:
                # They would get other messages' numbers. _align() ends this when nothing is in
                # flight any more.
                await asyncio.get_running_loop().create_future()
            if not may_send():
                await self._changes.until(may_send)
            frames: list[bytes] = []
            added = 0
            try:
                for entry in entries:
                    if window.add(entry):
                        frame = entry.frame
                        frames.append(frame if frame.startswith(b"{") else text_frame(frame))
                    added += 1
            except LabelInFlight:
                self._barred = True
            self.counters.sent += len(frames)
            if frames:
                if self._rules.on_send is not None:
                    self._rules.on_send(entries[:added])
                await self._producer.send(*frames)
            entries = entries[added:]
            if self._barred:
                label = entries[0].label
                await self._changes.until(lambda: label not in window)  # noqa: B023
                self._barred = False

    async def _watch(self) -> None:
        """Find a receipt that is missing while the connection looks alive."""
        timeout = self._rules.receipt_timeout
        while True:
            oldest = self._window.oldest
            await asyncio.sleep(timeout)
            if oldest is not None and oldest == self._window.oldest:
                raise LinkBroken(f"no receipt for a message in {timeout:g} s", Blame.NONE)

    async def _align(self) -> None:
        """End the session when the sequence ids may be wrong and nothing is in flight any more."""
        await self._misaligned.wait()
        await self._changes.until(lambda: not len(self._window))
        raise self._alignment.verdict()

    async def _receive(self) -> None:
        async for frames in self._producer.replies():
            for frame in frames:
                try:
                    reply = decode_reply(frame)
                except ValueError as error:
                    self.counters.malformed += 1
                    reason = f"Pulsar's reply cannot be read: {error}"
                    raise self._unreadable(reason, Blame.UNCLEAR) from None
                self._take(reply)
            if self._alignment.lost:
                self._misaligned.set()
                self._changes.notify()
            elif self._barred or self._window.room[0]:
                self._changes.notify()
            if len(self._window) >= _COALESCE_ABOVE:
                self._producer.rest(_COALESCE_DELAY)

    def _take(self, reply: Reply) -> None:
        if reply.context is None:
            # Pulsar could not read a frame and does not say which: any message in flight may be it.
            reason = f"{plain(reply.result)} without a context: {plain(reply.error)}"
            raise self._unreadable(reason, Blame.UNREADABLE)
        entry = self._window.remove(reply.context)
        if entry is None:
            self._take_late(reply, reply.context)
            return
        try:
            outcome = judge(
                reply,
                entry,
                self._topic,
                self._rules.sent_before,
                self._numbered,
                was_free=self._alignment.was_free,
            )
            if isinstance(outcome, Failure):
                self._apply_policy(outcome)
        except SendAgain as error:
            if self._numbered is None:
                raise
            self._alignment.failed(entry.number, str(error), over=ends_producer(reply))
        except FalseOk:
            self._alignment.false_ok(entry.number)
        else:
            if self._numbered is not None and not self._fits(entry, outcome, self._numbered):
                return
            self.counters.receipts += 1
            self._settle(entry, outcome)
            if self._numbered is not None and _undeclared(outcome, self._numbered):
                raise DeduplicationUnavailable.partitioned(self._topic)

    def _take_late(self, reply: Reply, label: str) -> None:
        """Take a reply to a message that has its outcome otherwise, or to none."""
        self.counters.unmatched += 1
        logger.debug("a reply for a context that is not in flight", context=plain(label))
        number = self._window.heard(label)
        if number is not None and is_stored(reply):
            self._rules.on_late(label, number)

    def _apply_policy(self, failure: Failure) -> None:
        """Raise :class:`SendAgain` if a refused message is not to fail."""
        policy = self._rules.policy(failure)
        if policy is Policy.PAUSE and self.pause is None:
            self.pause = failure
        if policy in (Policy.RETRY, Policy.PAUSE):
            raise SendAgain(f"{failure.code}: {failure.reason}", Blame.NONE)

    def _fits(self, entry: Entry, outcome: Outcome, numbered: Numbered) -> bool:
        """Note an outcome, and return whether the sequence ids allow to believe it."""
        if isinstance(outcome, Failure):
            self._alignment.refused(outcome.reason)
        elif outcome.status == "stored":
            self._alignment.stored(entry.number)
        else:
            # With a wrong sequence id it may be a duplicate of another message.
            return not self._alignment.lost
        return True

    def _unreadable(self, reason: str, blame: Blame) -> Exception:
        """Return the error for a reply whose message is not known."""
        if self._numbered is None:
            return LinkBroken(reason, blame)
        return SequenceMismatch(reason, regenerate=True, blame=blame)


def _writes(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Split messages into writes: large enough to be cheap, small enough for the socket."""
    begin = size = 0
    for place, entry in enumerate(entries):
        if place - begin >= _WRITE_COUNT or (size and size + len(entry.frame) > _WRITE_BYTES):
            yield entries[begin:place]
            begin, size = place, 0
        size += len(entry.frame)
    yield entries[begin:]


def _undeclared(outcome: Outcome, numbered: Numbered) -> bool:
    """Whether a receipt names a partition without a lane of its own."""
    return isinstance(outcome, Receipt) and outcome.partition != numbered.partition
