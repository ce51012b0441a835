"""What follows a message's receipt, as the lane's log tells it without the message's record."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, NamedTuple

import msgspec

__all__ = ["PRODUCE", "FollowUp", "Request", "ResultRow", "is_plain_id", "read_request"]

#: The name of the produce task that every app has: a mark without a name means this one.
PRODUCE = "celery_stargate.produce"

#: An id that JSON writes as it stands.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.:@#-]+")


class FollowUp(Enum):
    """What follows a receipt; by its mark in the lane's log (``common.lua``)."""

    NOTHING = "q"  #: no result, no callback, and nobody waits
    IGNORED = "i"  #: a task is done whose result nobody wants, and nothing goes on from it
    RESULT = "r"  #: a task's result is stored, and nothing goes on from it
    MORE = "f"  #: anything: its record tells


class ResultRow(NamedTuple):
    """A result as Celery's Redis backend stores it; it publishes the value under the key, too."""

    key: str
    value: str
    #: Seconds; 0 for ever.
    expires: int


class Request(msgspec.Struct):
    """What of a task's request decides about its result, or stands beside it."""

    ignore_result: bool | None = None
    callbacks: list[Any] | None = None
    chain: list[Any] | None = None
    chord: Any = None
    group: str | None = None
    parent_id: str | None = None

    @property
    def goes_on(self) -> bool:
        """Whether a link, a chain or a chord goes on from the result."""
        return bool(self.callbacks or self.chain or self.chord)

    @property
    def follow_up(self) -> FollowUp:
        """What follows, where there is no callback of ours."""
        # Group and parent stand beside a result. Without a word whether it is wanted, the task
        # decides, which only a worker knows for sure.
        beside = self.group is not None or self.parent_id is not None
        if self.goes_on or beside or self.ignore_result is None:
            return FollowUp.MORE
        return FollowUp.IGNORED if self.ignore_result else FollowUp.RESULT


_decode = msgspec.json.Decoder(Request).decode


def read_request(packed: str | None) -> Request | None:
    """Read a packed request; None where something in it is of another type.

    Arguments:
        packed: as a record has it; None for a task without one.
    """
    if packed is None:
        return Request()
    try:
        return _decode(packed)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def is_plain_id(context: str) -> bool:
    """Whether JSON writes an id as it stands."""
    return _PLAIN_ID.fullmatch(context) is not None
