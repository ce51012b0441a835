"""What goes between processes: what a waiting process gets, and what the scripts answer.

Both ends of an outcome on its way to a waiting process are here. The other end of a reply is the
Lua script that it is named after; its comment describes the reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import (
    Settled,
    decode_settled,
    encode_outcome,
    report_undecodable,
)
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import PRODUCE, FollowUp
from celery_stargate.model.frame import label_in
from celery_stargate.model.outcome import Failure, Receipt
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.decoding import UNDECODABLE

__all__ = [
    "CompleteReply",
    "Fenced",
    "LaneTick",
    "PutReply",
    "PutWord",
    "ReadReply",
    "SettleAnswer",
    "SettleReply",
    "SettleWord",
    "StoreRolledBack",
    "StoredEntry",
    "Unreadable",
    "check_lease",
    "decode_call",
    "encode_call",
    "last_number",
    "read_answer",
    "read_complete",
    "read_entries",
    "read_marked",
    "read_put",
    "read_settle",
    "read_stored",
    "read_tick",
]


# What a waiting process gets.

_decoder = msgspec.json.Decoder(tuple[Receipt | Failure, ...])


def encode_call(call: CallOutcomes) -> bytes:
    """Return what a waiting process gets: ``1`` for a list, else ``0``, and JSON."""
    parts = b",".join(map(encode_outcome, call.outcomes))
    return (b"1" if call.is_list else b"0") + b"[" + parts + b"]"


def decode_call(wire: bytes) -> CallOutcomes:
    """Read what :func:`encode_call` made.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    try:
        outcomes = _decoder.decode(wire[1:])
    except UNDECODABLE as error:
        raise ValueError(f"damaged outcomes: {error}") from None
    if not outcomes or wire[:1] not in (b"0", b"1"):
        raise ValueError(f"outcomes of an unknown version: {wire[:20]!r}")
    return CallOutcomes(outcomes[0].context, wire[:1] == b"1", outcomes)


# What the scripts answer.

#: An entry of a stream, as redis-py gives it: its id and its fields.
StoredEntry = tuple[bytes, dict[bytes, bytes]]


class Fenced(Exception):
    """Another process has the lease: settle nothing, forget what was read, and take part again."""


class StoreRolledBack(Exception):
    """Redis came back with an older state, as after a failover.

    New messages get numbers that were used before. Pulsar must not treat them as duplicates.
    """


def check_lease(word: int) -> None:
    """Check the first word of a reply that only the holder of the lease gets.

    Raises:
        Fenced: another process has the lease.
        StoreRolledBack: Redis came back with an older state than the caller knows.
    """
    if word == 1:
        raise Fenced
    if word == 2:
        raise StoreRolledBack


class PutWord(StrEnum):
    """What ``put`` did."""

    NEW = "new"  #: it recorded the context
    KNOWN = "known"  #: nothing: the context is pending, has its outcome, or had it a short time ago
    FULL = "full"  #: nothing: the lane has as many messages as it may have


class PutReply(NamedTuple):
    """The reply of ``put`` and ``put_many``."""

    word: PutWord
    #: The context's first number; for ``FULL`` the length of the backlog, for ``KNOWN`` 0 if the
    #: context is pending no more.
    number: int
    #: Whether the lane begins with it, and could not be announced: the list's key has a wrong type.
    unlisted: bool = False


def read_put(reply: Sequence[Any]) -> PutReply:
    """Read the reply of ``put`` or ``put_many``."""
    word, number, *unlisted = reply
    return PutReply(PutWord(word.decode()), number, bool(unlisted))


class SettleWord(StrEnum):
    """What became of one outcome that was given to ``settle``."""

    DUE = "due"  #: the context is settled now, and its effects are due
    PART = "part"  #: other messages of the context have no outcome yet
    LATE = "late"  #: the context was settled before, or never was there
    IGNORED = "ignored"  #: a failure that this caller may not tell


class SettleAnswer(NamedTuple):
    """The answer of ``settle`` for one outcome."""

    word: SettleWord
    #: What to do the effects for; None for every word but ``DUE``.
    settled: Settled | None


class SettleReply(NamedTuple):
    """The reply of ``settle`` to the owner of a lane."""

    #: The contexts that are settled now, and whose effects are due.
    settled: list[Settled]
    #: The places, from 0, of the outcomes that changed nothing.
    late: frozenset[int]
    #: Whether the lease is lost, so that only receipts counted.
    fenced: bool


def read_answer(answer: Sequence[Any], topic: str | None) -> SettleAnswer:
    """Read the answer for one outcome.

    Arguments:
        topic: as in :func:`decode_settled`.

    Raises:
        ValueError: the context is settled, and its record is of another version or damaged.
    """
    word, *rest = answer
    if word != b"due":
        return SettleAnswer(SettleWord(word.decode()), None)
    return SettleAnswer(SettleWord.DUE, decode_settled(rest[0], rest[1], topic))


def read_settle(reply: Sequence[Any], lane: Lane) -> SettleReply:
    """Read the reply of ``settle``; a record that this version cannot read is logged, and left."""
    fenced, *answers = reply
    topic = lane.topic if lane.has_messages else None
    settled: list[Settled] = []
    late: set[int] = set()
    for place, answer in enumerate(answers):
        if answer[0] == b"due":
            try:
                settled.append(decode_settled(answer[1], answer[2], topic))
            except ValueError as error:
                report_undecodable(lane, error)
        elif answer[0] in (b"late", b"ignored"):
            late.add(place)
    return SettleReply(settled, frozenset(late), bool(fenced))


class CompleteReply(NamedTuple):
    """The reply of ``complete``."""

    #: The places, from 0, of the contexts that were settled before, or never were there.
    late: frozenset[int]
    #: Whether the lease is lost; receipts count all the same.
    fenced: bool


def read_complete(reply: Sequence[Any]) -> CompleteReply:
    """Read the reply of ``complete``."""
    fenced, _, *late = reply
    return CompleteReply(frozenset(place - 1 for place in late), bool(fenced))


@dataclass(frozen=True, slots=True)
class LaneTick:
    """What a lane holds, at a renewal of its lease."""

    contexts: int
    backlog: int
    due: int
    #: Seconds to the next deadline; None if no context is pending.
    next_deadline: float | None

    @property
    def idle(self) -> bool:
        """Whether it holds nothing at all."""
        return not (self.contexts or self.backlog or self.due) and self.next_deadline is None


def read_tick(reply: Sequence[Any]) -> LaneTick:
    """Read the reply of ``tick``.

    Raises:
        Fenced, StoreRolledBack: as :func:`check_lease`.
    """
    word, *rest = reply
    check_lease(word)
    contexts, backlog, due, left = rest
    return LaneTick(contexts, backlog, due, left / 1000 if left >= 0 else None)


class Unreadable(StrEnum):
    """Why an entry of a lane's log may not be sent; the words are those of ``read.lua``."""

    DAMAGED = "damaged"  #: the entry, or the record of its context, cannot be read
    ORPHAN = "orphan"  #: its context has no record, or the record of another message
    EXPIRED = "expired"  #: its record is of a newer version, and its deadline has passed
    NEWER = "newer"  #: its record is of a newer version: the lane waits for a process that reads it


class ReadReply(NamedTuple):
    """The reply of ``read``."""

    #: The messages that may be sent.
    entries: list[Entry]
    #: Number and reason of each entry between them that may not be sent, and must not be: set it
    #: aside, unless its reason is :attr:`Unreadable.NEWER`; then it is the last.
    unreadable: list[tuple[int, str]]


_FOLLOW_UPS = {each.value.encode(): each for each in FollowUp}
#: The fields of a message in the reply of ``read``.
_ENTRY_FIELDS = 5
#: The place of an entry that may not be sent.
_UNREADABLE = -2


def read_entries(fields: Sequence[Any]) -> ReadReply:
    """Read the messages in the reply of ``read``: all after the first word and the mark."""
    entries: list[Entry] = []
    unreadable: list[tuple[int, str]] = []
    columns = (fields[i::_ENTRY_FIELDS] for i in range(_ENTRY_FIELDS))
    for number, label, frame, place, code in zip(*columns, strict=True):
        if place == _UNREADABLE:
            unreadable.append((number, code.decode()))
            continue
        try:
            entries.append(_read_entry(number, label, frame, place, code))
        except ValueError:
            unreadable.append((number, Unreadable.DAMAGED))
    return ReadReply(entries, unreadable)


def _read_entry(number: int, label: bytes, frame: bytes, place: int, code: bytes) -> Entry:
    """Read one message.

    Raises:
        ValueError: it is damaged.
    """
    name = label.decode() if label else label_in(frame)
    after = code[1:].decode()
    # A code of a later version: do whatever the record says.
    follow_up = _FOLLOW_UPS.get(code[:1], FollowUp.MORE)
    if follow_up is FollowUp.WAITER:
        return Entry(number, name, frame, place, follow_up, inbox=after)
    return Entry(number, name, frame, place, follow_up, after or PRODUCE)


class Marked(NamedTuple):
    """A message that its put marked for the lane's owner."""

    entry: Entry
    #: What the log says of it: the lease, the token of the put, and its time.
    by: str


def read_marked(stored: StoredEntry, lease: str) -> Marked | None:
    """Read an entry of a lane's log, if its put marked it for the owner that has the lease.

    Arguments:
        stored: as redis-py gives it.
        lease: as Redis has it.

    Returns:
        None for one that its owner has to read with ``read``: it was not marked, or it is
        damaged.
    """
    by = stored[1].get(b"m", b"")
    if not by.startswith(b"%s " % lease.encode()):
        return None
    try:
        return Marked(_read_stored(stored), by.decode())
    except ValueError:
        return None


def read_stored(entries: Sequence[StoredEntry], size: int) -> list[Entry]:
    """Read entries of a lane's log as they are stored.

    Arguments:
        entries: as redis-py gives them.
        size: how many bytes of frames at most; the first message may be larger.

    Returns:
        None of them if one has to be read with ``read``.
    """
    found: list[Entry] = []
    try:
        for stored in entries:
            entry = _read_stored(stored)
            size -= len(entry.frame)
            if size < 0 and found:
                break
            found.append(entry)
    except ValueError:
        return []
    return found


def _read_stored(stored: StoredEntry) -> Entry:
    """Read one message.

    Raises:
        ValueError: it is damaged.
    """
    entry_id, fields = stored
    number, _, rest = entry_id.partition(b"-")
    if rest != b"0":
        raise ValueError(f"no number: {entry_id!r}")
    code, frame = next(iter(fields.items()))
    label, place = fields.get(b"l", b""), fields.get(b"p")
    if place is not None and not place.isdigit():
        raise ValueError(f"no place: {place!r}")
    code += fields.get(b"t", b"")
    return _read_entry(int(number), label, frame, -1 if place is None else int(place), code)


def last_number(fields: Sequence[Any]) -> int:
    """Return the number of the last message in the reply of ``read``."""
    return int(fields[-_ENTRY_FIELDS])
