"""Records: what a lane keeps of each context until its effects are done; how they are stored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from celery_stargate.lanes.lane import Lane
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.follow_up import PRODUCE, FollowUp, read_request
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.decoding import UNDECODABLE
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

__all__ = [
    "RECORD_VERSION",
    "RECORD_VERSIONS",
    "Ended",
    "Record",
    "Settled",
    "decode_record",
    "decode_settled",
    "decode_triples",
    "encode_outcome",
    "encode_record",
    "first_number",
    "report_undecodable",
]

logger = logger_of(__name__)


#: The newest version of the records that this package writes. 2: a message's frame may hold its
#: payload as bytes; a record whose frames are all text is written as version 1.
RECORD_VERSION = 2
#: The versions that it reads, as they begin a record.
RECORD_VERSIONS = (b"1", b"2")


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the effects of a context need; its messages are in the lane's log.

    It is stored as JSON after a head, which begins with the version (see ``common.lua``).
    """

    context: str
    #: Whether the caller gave a list: then the result is a list.
    is_list: bool = False
    #: The name of the Celery task whose result the outcome is; None for a call without a task.
    task: str | None = None
    #: The request of that task as JSON: its headers and Celery's ``embed`` (callbacks, chord, …).
    request: str | None = None
    #: Signatures to trigger, as JSON, with frozen task ids.
    on_ack: str | None = None
    on_error: str | None = None
    #: The address of the waiting call: an inbox, a slash, and the ticket in it.
    inbox: str | None = None
    #: For a message of a list that spans lanes: the list's lane, its context, and the place in it.
    parent: tuple[str, str, int] | None = None
    #: The first number of that context (see ``common.lua``), which tells it from a later one of the
    #: same name; None where it was recorded without it.
    parent_first: int | None = None
    #: What tells this call from another with the same context, in the ids of its callbacks. Only a
    #: call with callbacks has one.
    incarnation: str = ""
    #: The context of the call's trace; None where nothing traces.
    trace: dict[str, str] | None = None
    #: For a dead letter that is sent again: how often it failed, and when first, epoch ms. The
    #: scripts read it from the end of the record, so it stays the last field.
    replayed: tuple[int, int] | None = None

    @property
    def original(self) -> str:
        """The context of the first attempt, if this is a dead letter that is sent again."""
        return self.context if self.replayed is None else _first_attempt(self.context)

    @property
    def follow_up(self) -> FollowUp:
        """What follows a receipt for its only message."""
        if self.on_ack or self.parent:
            return FollowUp.MORE
        if self.inbox:
            alone = self.task is None and not self.is_list
            return FollowUp.WAITER if alone else FollowUp.MORE
        if self.task is None:
            return FollowUp.NOTHING
        request = read_request(self.request)
        return FollowUp.MORE if self.is_list or request is None else request.follow_up

    @property
    def follow_up_code(self) -> str:
        """What the log entry of its only message has: the follow-up's code, then a name.

        That is the address of the waiting call, or the name of the task. It is left out where
        nothing needs it, and for the produce task of every app.
        """
        follow_up = self.follow_up
        if follow_up is FollowUp.WAITER:
            return f"{follow_up.value}{self.inbox}"
        named = follow_up in (FollowUp.IGNORED, FollowUp.RESULT) and self.task != PRODUCE
        return f"{follow_up.value}{self.task}" if named else follow_up.value


_REPLAY = re.compile(r"(?:\t\d+)?\.replay-\d+$")


def _first_attempt(context: str) -> str:
    return _REPLAY.sub("", context)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
#: An outcome; for a message whose deadline passed 0 (it was never sent) or 1 (it may have been).
_outcomes = msgspec.json.Decoder(list[Receipt | Failure | int])


def encode_record(record: Record) -> bytes:
    """Return a record's body, as the scripts that put it get it.

    Raises:
        TypeError: a header or a signature holds a value that JSON cannot represent.
    """
    return _encoder.encode(record)


def encode_outcome(outcome: Outcome) -> bytes:
    """Return an outcome as it is stored in the lane.

    Raises:
        TypeError: JSON cannot represent a receipt's ``value``.
    """
    return _encoder.encode(outcome)


class Ended(NamedTuple):
    """How a task ended, as Celery has it."""

    #: A state of Celery.
    state: str
    #: The exception; None for a success, and for the failure that the message has.
    error: BaseException | None


class Settled(msgspec.Struct, frozen=True):
    """A context whose outcome is known and whose effects are not done yet."""

    record: Record
    outcomes: tuple[Outcome, ...]
    #: The context's first number, which tells it from another of the same name.
    first: int = 0
    #: How its task ended, for who is told that its effects are done; None: as the outcomes say.
    ended: Ended | None = None

    @property
    def identity(self) -> tuple[str, int]:
        """The context and its first number, as the scripts take them."""
        return self.record.context, self.first

    @property
    def call(self) -> CallOutcomes:
        """The outcomes without the record: all that a waiting process gets."""
        record = self.record
        return CallOutcomes(record.context, record.is_list, self.outcomes, record.incarnation)

    @property
    def callback(self) -> str | None:
        """The packed signature that the outcomes trigger; None if there is none."""
        return self.record.on_error if self.failed else self.record.on_ack

    @property
    def request(self) -> str | None:
        """The packed request of the task; None for a call without a task."""
        return self.record.request

    @property
    def trace(self) -> dict[str, str] | None:
        """The context of the call's trace; None without one."""
        return self.record.trace

    @property
    def failed(self) -> bool:
        """As :attr:`CallOutcomes.failed`."""
        return Failure in map(type, self.outcomes)

    @property
    def result(self) -> Any:
        """As :attr:`CallOutcomes.result`."""
        return self.call.result

    @property
    def failure(self) -> Failure:
        """As :attr:`CallOutcomes.failure`."""
        return self.call.failure


def decode_record(stored: bytes) -> Record:
    """Read a record as a lane stores it: head and body.

    Raises:
        ValueError: the record is of another version, or damaged.
    """
    head, separator, body = stored.partition(b"\n")
    if not separator or head[:1] not in RECORD_VERSIONS or head[1:2] != b" ":
        raise ValueError(f"a record of an unknown version: {head[:20]!r}")
    try:
        return _decoder.decode(body)
    except UNDECODABLE as error:
        raise ValueError(f"a damaged record: {error}") from None


def first_number(stored: bytes) -> int:
    """Return the first number of a record as a lane stores it (see ``common.lua``).

    Raises:
        ValueError: the record is damaged.
    """
    try:
        return int(stored.split(b" ", 2)[1])
    except (IndexError, ValueError) as error:
        raise ValueError(f"a damaged record: {error}") from None


def decode_settled(stored: bytes, outcomes: bytes, topic: str | None) -> Settled:
    """Read a record and the outcomes of its messages, as a script returns them.

    Arguments:
        stored: head and body of the record.
        outcomes: a JSON list; 0 and 1 in it are messages whose deadline passed.
        topic: the lane's, for the failures of those messages.

    Raises:
        ValueError: the record is of another version, or damaged.
    """
    record = decode_record(stored)
    try:
        parts = _outcomes.decode(outcomes)
    except UNDECODABLE as error:
        raise ValueError(f"a damaged record: {error}") from None
    if not parts:
        raise ValueError("a damaged record: it has no outcome")
    named = tuple(_named(record.context, topic, parts))
    return Settled(record, named, first_number(stored))


def _named(
    context: str, topic: str | None, parts: Iterable[Receipt | Failure | int]
) -> Iterable[Outcome]:
    for part in parts:
        if isinstance(part, int):
            yield deadline_failure(context, topic, sent=bool(part))
        else:
            yield part


def decode_triples(reply: Sequence[Any], lane: Lane) -> Iterator[Settled]:
    """Read a script's reply of context, record, outcomes, context, record, outcomes, …

    A record that this version cannot read is logged and left out.
    """
    topic = lane.topic if lane.has_messages else None
    for record, outcomes in zip(reply[1::3], reply[2::3], strict=True):
        try:
            yield decode_settled(record, outcomes, topic)
        except ValueError as error:
            report_undecodable(lane, error)


def report_undecodable(lane: Lane, error: ValueError) -> None:
    """Log a record that this version cannot read, not each time; it stays where it is."""
    if _log_now(lane)():
        logger.error("%s; left alone", error, lane=lane.name)


@lru_cache(maxsize=1024)
def _log_now(lane: Lane) -> Seldom:  # noqa: ARG001  # the key of the cache
    return Seldom()
