"""Records: what a lane keeps of each context until its effects are done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..outcome import Failure, Outcome, Receipt
from .sequel import PRODUCE, Sequel, read_request

__all__ = ["Record", "Settled", "decode_settled"]


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
    def sequel(self) -> Sequel:
        """What follows a receipt for its only message."""
        if self.on_ack or self.inbox or self.parent:
            return Sequel.MORE
        if self.task is None:
            return Sequel.NOTHING
        request = read_request(self.request)
        return Sequel.MORE if self.is_list or request is None else request.sequel

    @property
    def mark(self) -> str:
        """What the log notes of its only message: the sequel's mark, and the task that it names."""
        sequel = self.sequel
        named = sequel in (Sequel.IGNORED, Sequel.RESULT) and self.task != PRODUCE
        return f"{sequel.value}{self.task}" if named else sequel.value


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
        unknown = [failure for failure in failures if failure.outcome == "unknown"]
        first = (unknown or failures)[0]
        return Failure(
            context=self.record.context,
            topic=first.topic,
            outcome=first.outcome,
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
        if not isinstance(part, int):
            yield part
        elif part:
            yield Failure(
                context=context,
                topic=topic,
                outcome="unknown",
                code="deadline",
                reason="the deadline passed after it may have been sent, and no receipt came",
            )
        else:
            yield Failure(
                context=context,
                topic=topic,
                outcome="refused",
                code="deadline",
                reason="the deadline passed before it could be sent",
            )
