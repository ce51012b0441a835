"""What must happen after a receipt.

:class:`FollowUp` is encoded in the log entry, so that the owner need not load the record.
:data:`Decision` is what a worker makes of it: it also knows the tasks, settings and signals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from celery_stargate.support.decoding import UNDECODABLE

__all__ = [
    "PRODUCE",
    "RECEIVED_AT",
    "RECORDED_AT",
    "Decision",
    "FollowUp",
    "Remaining",
    "Request",
    "ResultRow",
    "is_plain_id",
    "read_request",
    "request_fields",
    "since_of",
]

#: The name of the produce task that every app has; a follow-up code without a name means this one.
PRODUCE = "celery_stargate.produce"

#: The field of a request with the time when its caller recorded it in its lane.
RECORDED_AT = "stargate_recorded_at"
#: The field with the time when a worker put a request there that came by Celery's broker.
RECEIVED_AT = "stargate_received_at"

#: An id that JSON writes without escapes.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.:@#-]+")


class FollowUp(Enum):
    """What follows a receipt; the value is its code in the log entry (``common.lua``)."""

    NOTHING = "q"  #: no result, no callback, and no waiting call
    IGNORED = "i"  #: a task ends whose result is ignored, and nothing goes on from it
    RESULT = "r"  #: a task's result is stored, and nothing goes on from it
    WAITER = "w"  #: a call waits for the receipt, and that is all
    MORE = "f"  #: anything else: the record tells


class ResultRow(NamedTuple):
    """A result as Celery's Redis backend stores it; the value is also published under the key."""

    key: str
    #: JSON text; bytes for the serializers of Celery that write bytes.
    value: str | bytes
    #: Seconds; 0 for never.
    expires: int


class Remaining(Enum):
    """What is left to do for an outcome, if it is not just a row to be stored."""

    NOTHING = "nothing"  #: the context can be forgotten
    FULL = "full"  #: all effects: the context is settled first, then ``Effects.run`` does them


#: What is left to do for an outcome: a row is to be stored, and that is all; or the rest.
Decision = ResultRow | Remaining


class Request(msgspec.Struct):
    """The fields of a task's request that decide about its result, or are stored with it."""

    id: str | None = None
    ignore_result: bool | None = None
    callbacks: list[Any] | None = None
    errbacks: list[Any] | None = None
    chain: list[Any] | None = None
    chord: Any = None
    group: str | None = None
    parent_id: str | None = None
    #: How many attempts came before, where the task is retried.
    retries: int | None = None

    @property
    def goes_on(self) -> bool:
        """Whether a link, a chain or a chord goes on from the result."""
        return bool(self.callbacks or self.chain or self.chord)

    @property
    def counts(self) -> bool:
        """Whether nothing but a chord goes on from the result: the task is counted for it."""
        return bool(self.chord) and not (self.callbacks or self.chain)

    @property
    def follow_up(self) -> FollowUp:
        """What follows a receipt, if the call has no ``on_ack`` and nobody waits."""
        # Group and parent are stored with the result. If the request does not say whether the
        # result is ignored, the task does, and only a worker knows that for sure.
        stored_with_it = self.group is not None or self.parent_id is not None
        # The context of a later attempt is not the task's id.
        later = bool(self.retries)
        if self.goes_on or stored_with_it or later or self.ignore_result is None:
            return FollowUp.MORE
        return FollowUp.IGNORED if self.ignore_result else FollowUp.RESULT


_decode = msgspec.json.Decoder(Request).decode
_decode_any = msgspec.json.Decoder().decode


def read_request(packed: str | None) -> Request | None:
    """Read a task's request; None if a field of it has another type than expected.

    Arguments:
        packed: JSON, as a record has it; None for a task without a request.
    """
    if packed is None:
        return Request()
    try:
        return _decode(packed)
    except UNDECODABLE:
        return None


def request_fields(packed: str | None) -> dict[str, Any]:
    """Return all fields of a task's request; none if there is no request, or it cannot be read.

    It is for what looks at many records: one that is damaged must not hide the others.

    Arguments:
        packed: JSON, as a record has it.
    """
    text = packed or "{}"
    try:
        found = _decode_any(text)
    except UNDECODABLE:
        try:
            # It also reads what no other JSON has, such as NaN.
            found = json.loads(text)
        except UNDECODABLE:
            return {}
    return found if isinstance(found, dict) else {}


def since_of(request: Mapping[str, Any], now: float) -> tuple[float, bool]:
    """Return since when a task's call is recorded, and whether its caller recorded it in its lane.

    Arguments:
        request: of the task.
        now: the time, in seconds; taken for a request that does not tell.
    """
    by_lane = RECORDED_AT in request
    found = request.get(RECORDED_AT if by_lane else RECEIVED_AT)
    return (float(found) if isinstance(found, int | float) else now), by_lane


def is_plain_id(context: str) -> bool:
    """Whether JSON writes an id without escapes."""
    return _PLAIN_ID.fullmatch(context) is not None
