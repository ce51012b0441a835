"""Records: what a lane keeps of each context until its effects are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from celery_stargate.lanes.lane import Lane
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.follow_up import PRODUCE, FollowUp, read_request
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.support.log import logger

__all__ = [
    "Record",
    "Settled",
    "decode_settled",
    "decode_triples",
    "report_undecodable",
    "settled_to_wire",
]


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the effects of a context need; its messages stand in the lane's log.

    Stored as JSON behind a head of its own, which begins with the version (``common.lua``).
    """

    context: str
    #: Whether the caller gave a list: then the result is a list.
    is_list: bool = False
    #: The name of the Celery task that waits for the outcome, where one does.
    task: str | None = None
    #: The request of that task, packed: its headers and Celery's ``embed`` (callbacks, chord, …).
    request: str | None = None
    #: Signatures to trigger, packed, ids frozen.
    on_ack: str | None = None
    on_error: str | None = None
    #: The address of one who waits: an inbox, and the ticket in it.
    inbox: str | None = None
    #: Lane, context and place of the list that this message is a part of.
    parent: tuple[str, str, int] | None = None

    @property
    def follow_up(self) -> FollowUp:
        """What follows a receipt for its only message."""
        if self.on_ack or self.inbox or self.parent:
            return FollowUp.MORE
        if self.task is None:
            return FollowUp.NOTHING
        request = read_request(self.request)
        return FollowUp.MORE if self.is_list or request is None else request.follow_up

    @property
    def mark(self) -> str:
        """What the log notes of its only message: the follow-up's code and the task it names."""
        follow_up = self.follow_up
        named = follow_up in (FollowUp.IGNORED, FollowUp.RESULT) and self.task != PRODUCE
        return f"{follow_up.value}{self.task}" if named else follow_up.value


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
#: An outcome, or 0 and 1 for a message that the deadline found unsent and perhaps sent.
_outcomes = msgspec.json.Decoder(list[Receipt | Failure | int])


def encode_record(record: Record) -> bytes:
    """Return a record's body.

    Raises:
        TypeError: a header or a signature holds what JSON cannot carry.
    """
    return _encoder.encode(record)


def encode_outcome(outcome: Outcome) -> bytes:
    """Return an outcome as it stands in the lane.

    Raises:
        TypeError: a receipt's ``value`` is not for JSON.
    """
    return _encoder.encode(outcome)


class Settled(msgspec.Struct, frozen=True):
    """A context that has its outcome, and waits for its effects."""

    record: Record
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> bool:
        """Whether any of its messages has no receipt."""
        return Failure in map(type, self.outcomes)

    @property
    def result(self) -> Any:
        """What the task returns and ``on_ack`` gets: the receipt, or for a list all receipts."""
        receipts = [outcome.to_dict() for outcome in self.outcomes]
        return receipts if self.record.is_list else receipts[0]

    @property
    def failure(self) -> Failure:
        """What the error holds and ``on_error`` gets.

        For a list: the first failure, ``unknown`` where any message is, with every message's
        outcome.
        """
        failures = [outcome for outcome in self.outcomes if isinstance(outcome, Failure)]
        if not self.record.is_list:
            return failures[0]
        unknown = [failure for failure in failures if failure.status == "unknown"]
        first = (unknown or failures)[0]
        return Failure(
            context=self.record.context,
            topic=first.topic,
            status=first.status,
            reason=f"{len(failures)} of {len(self.outcomes)} messages failed: {first.reason}",
            code=first.code,
            outcomes=[outcome.to_dict() for outcome in self.outcomes],
        )


def decode_settled(stored: bytes, outcomes: bytes, topic: str | None) -> Settled:
    """Read a record as a script returns it, with the outcomes of its messages.

    Raises:
        ValueError: the record is of another version, or damaged.
    """
    head, separator, body = stored.partition(b"\n")
    if not separator or not head.startswith(b"1 "):
        raise ValueError(f"a record of an unknown version: {head[:20]!r}")
    try:
        record = _decoder.decode(body)
        parts = _outcomes.decode(outcomes)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"a damaged record: {error}") from None
    if not parts:
        raise ValueError("a damaged record: it has no outcome")
    return Settled(record, tuple(_named(record.context, topic, parts)))


def _named(
    context: str, topic: str | None, parts: Iterable[Receipt | Failure | int]
) -> Iterable[Outcome]:
    for part in parts:
        if isinstance(part, int):
            yield deadline_failure(context, topic, sent=bool(part))
        else:
            yield part


def settled_to_wire(settled: Settled) -> bytes:
    """Return what a waiting process gets: the outcomes as a JSON list, ``is_list`` before it."""
    parts = b",".join(encode_outcome(outcome) for outcome in settled.outcomes)
    return (b"1" if settled.record.is_list else b"0") + b"[" + parts + b"]"


def decode_triples(reply: Sequence[Any], lane: Lane) -> Iterator[Settled]:
    """Read context, record and outcomes, three by three; a record of another version stays out."""
    topic = lane.topic if lane.has_messages else None
    for record, outcomes in zip(reply[1::3], reply[2::3], strict=True):
        try:
            yield decode_settled(record, outcomes, topic)
        except ValueError as error:
            report_undecodable(lane, error)


def report_undecodable(lane: Lane, error: ValueError) -> None:
    """Log a record that this version cannot read; it stays where it is."""
    logger.error("lane %s: %s; left alone", lane.name, error)
