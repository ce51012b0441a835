"""What a put asks of Redis, and what its answer means; no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import msgspec

from celery_stargate.errors import ContextInUse, LaneFull
from celery_stargate.lanes.inbox import bucket_of
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, encode_record
from celery_stargate.lanes.scripts import Argument
from celery_stargate.lanes.wire import PutReply, PutWord
from celery_stargate.model.follow_up import FollowUp

__all__ = [
    "ANSWER_MS",
    "AskedPut",
    "begin_arguments",
    "follow_up_code",
    "milliseconds",
    "options_text",
]

#: How long, in ms, a repeated put gets the first answer, and a copy of an earlier put of the same
#: caller, which was held up in the network, does nothing.
ANSWER_MS = 900_000
_MORE = FollowUp.MORE.value


class AskedPut(msgspec.Struct, frozen=True, gc=False):
    """One put of a context with its messages; the fields are those of ``Outbox.put``."""

    lane: Lane
    record: Record
    messages: Sequence[tuple[str, bytes]]
    timeout: float
    max_backlog: int | str = 0
    tombstone: float = 0.0
    exclusive: bool = False
    #: Whether the context is a new id that nobody else has.
    fresh: bool = False
    options: Mapping[str, object] | None = None

    def arguments(self, prefix: str) -> list[Argument]:
        """Return the arguments of the script ``put``, all after the token.

        Arguments:
            prefix: what all keys begin with.
        """
        record, messages = self.record, self.messages
        arguments: list[Argument] = [
            record.context,
            encode_record(record),
            milliseconds(self.timeout),
            self.max_backlog,
            round(self.tombstone * 1000),
            ANSWER_MS,
            follow_up_code(prefix, self.lane, record) if len(messages) == 1 else _MORE,
        ]
        for label, frame in messages:
            arguments += (label, frame)
        arguments += begin_arguments(self.lane, self.options)
        return arguments

    @property
    def together(self) -> tuple[object, ...] | None:
        """What puts have in common that one run of ``put_many`` may record; None: not this one."""
        if not self.fresh or len(self.messages) != 1 or isinstance(self.max_backlog, str):
            return None
        return self.lane, milliseconds(self.timeout), self.max_backlog, self.tombstone

    @property
    def of_all(self) -> list[Argument]:
        """The first arguments of ``put_many``, after the token: those of all puts."""
        tombstone = round(self.tombstone * 1000)
        return [milliseconds(self.timeout), self.max_backlog, tombstone, ANSWER_MS]

    def of_many(self, prefix: str) -> list[Argument]:
        """Return its arguments of ``put_many``.

        Arguments:
            prefix: what all keys begin with.
        """
        record, [(_, frame)] = self.record, self.messages
        code = follow_up_code(prefix, self.lane, record)
        return [record.context, encode_record(record), code, frame]

    @property
    def size(self) -> int:
        """How many bytes its frames have."""
        return sum(len(frame) for _, frame in self.messages)

    def number(self, reply: PutReply) -> int:
        """Return the context's first number.

        Raises:
            LaneFull, ContextInUse: as ``Outbox.put``.
        """
        word, number, _ = reply
        if word is PutWord.FULL:
            raise LaneFull(self.lane.name, number, int(self.max_backlog))
        if word is PutWord.KNOWN and self.exclusive:
            raise ContextInUse(self.record.context)
        return number


def follow_up_code(prefix: str, lane: Lane, record: Record) -> str:
    """Return the code of what follows the receipt for the only message of a context.

    On a Cluster the step that settles can tell only calls whose inbox is beside the lane.

    Arguments:
        prefix: what all keys begin with.
        lane: of the message.
    """
    if record.inbox and "{" in prefix and bucket_of(record.inbox) != lane.bucket(prefix):
        return _MORE
    return record.follow_up_code


def begin_arguments(lane: Lane, options: Mapping[str, object] | None) -> tuple[str, str]:
    """Return the last arguments of ``put`` and ``put_many``, which a lane needs that begins.

    Arguments:
        options: producer options for a worker whose settings do not have the lane's topic.
    """
    left = "" if options is None else options_text(options)
    return left, lane.name if lane.has_messages else ""


def options_text(options: Mapping[str, object]) -> str:
    """Return producer options as a lane keeps them for such workers."""
    # Most calls have none, and each call asks.
    return json.dumps(options, sort_keys=True) if options else "{}"


def milliseconds(seconds: float) -> int:
    """Return a duration as the scripts get it: 1 ms at least."""
    return max(1, round(seconds * 1000))
