"""What the questions about dead letters answer; the fields are the documented JSON form."""

from __future__ import annotations

from enum import StrEnum

import msgspec

__all__ = [
    "DeadLetterChange",
    "DeadLetterDetail",
    "DeadLetterFilter",
    "DeadLetterGroup",
    "DeadLetterTotals",
    "DeadLetterView",
    "DeadResult",
]


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter, without its payload."""

    #: The context of the call; ``context[3]`` for message 3 of a list.
    id: str
    #: The lane that has it.
    lane: str
    #: The lane's topic, by its full name.
    topic: str
    #: ``message``: it has no receipt; ``effects``: it is stored, and its result or callback failed.
    kind: str
    #: The class of its error.
    error: str
    #: The code of its error.
    code: str
    #: Its outcome: ``refused``, ``unknown``, or ``stored`` where only the effects failed.
    status: str
    #: Why it failed, for people.
    reason: str
    #: How many attempts failed.
    failures: int
    #: How long ago the first attempt failed.
    first_failed_seconds: float
    #: How long ago the last attempt failed.
    last_failed_seconds: float
    #: How large the payload and the callbacks are.
    size_bytes: int


class DeadLetterDetail(DeadLetterView, frozen=True, kw_only=True):
    """One dead letter, with all that is known of it but its payload."""

    #: The Celery task whose result the outcome is.
    task: str | None
    #: The tasks that a receipt triggers.
    on_ack: str | None
    #: The tasks that a failure triggers.
    on_error: str | None
    #: Whether it can be replayed; false if its message or its record cannot be read.
    replayable: bool


class DeadLetterGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letters of one cause."""

    #: The topic, by its full name.
    topic: str
    #: The class of the error.
    error: str
    #: The code of the error.
    code: str
    #: How many there are.
    count: int


class DeadLetterTotals(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead letters there are, and what became of others."""

    #: All that are kept now.
    count: int
    #: How large they are together.
    size_bytes: int
    #: How many were let go because there were too many.
    evicted: int
    #: How many were let go because of their age.
    outdated: int
    #: By topic and cause.
    groups: list[DeadLetterGroup]


class DeadResult(StrEnum):
    """What became of an action on one dead letter."""

    DONE = "done"  #: it was done
    MISSING = "missing"  #: there is no such dead letter (any more)
    FULL = "full"  #: its lane holds ``stargate_max_backlog`` messages; try again later
    KNOWN = "known"  #: a replay of it is pending, or ended a short time ago
    UNREADABLE = "unreadable"  #: its message or record cannot be read


class DeadLetterChange(msgspec.Struct, frozen=True):
    """The answer of an action on one dead letter."""

    #: Which one.
    id: str
    #: ``done``, ``missing``, ``full``, ``known`` or ``unreadable``.
    result: DeadResult


class DeadLetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are meant."""

    #: Only those of this topic, by its full name.
    topic: str | None = None
    #: Only those whose error has this class or code.
    error: str | None = None
    #: Only those whose last attempt failed this many seconds ago or earlier.
    older_than: float | None = None
