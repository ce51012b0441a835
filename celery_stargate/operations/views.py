"""What the questions answer: plain structs, whose fields are the documented JSON form.

A field's name ends in its unit. A field is null where the answer is not known.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from celery_stargate.lanes.lane import PAUSED_BY

__all__ = [
    "ContextDetail",
    "ContextState",
    "ContextView",
    "LaneView",
    "Rates",
    "StatusView",
    "TopView",
    "WorkerView",
]


class ContextState(StrEnum):
    """Where a context stands, as an operator sees it."""

    UNSENT = "unsent"  #: recorded; no owner has sent it yet
    SENT = "sent"  #: sent, and its receipt is not here yet
    OPEN = "open"  #: it has no message in this lane; somebody else settles it
    SETTLED = "settled"  #: it has its outcome; its result or callbacks are not done yet
    UNREADABLE = "unreadable"  #: its record is damaged, or of another version of this package


class LaneView(msgspec.Struct, frozen=True, kw_only=True):
    """One lane."""

    #: Its name: the topic, ``#`` and the index.
    lane: str
    #: The topic's full name.
    topic: str
    #: Its place among the lanes of its topic.
    index: int
    #: The process that holds the lease; null if nobody does.
    owner: str | None
    #: Seconds for which the lease holds without a renewal.
    lease_seconds: float | None
    #: Messages without a receipt: ``unsent`` and ``sent``.
    backlog: int
    #: Messages that no owner has sent yet.
    unsent: int
    #: Messages that were sent and have no receipt yet.
    sent: int
    #: Contexts that are not finished.
    contexts: int
    #: Contexts with an outcome whose result or callbacks are not done yet.
    settled: int
    #: Messages that were recorded since the lane began.
    recorded_total: int
    #: Messages that may have been sent, of these.
    sent_total: int
    #: How long ago the oldest message without a receipt was recorded.
    oldest_age_seconds: float | None
    #: False if the age was computed from the deadline and the configured timeout.
    oldest_age_exact: bool
    #: Seconds until the next deadline; negative if it has passed.
    next_deadline_seconds: float | None
    #: How long ago a caller announced the lane; null for a lane that is not announced.
    announced_seconds: float | None
    #: Its dead letters.
    dead: int = 0

    @property
    def done_total(self) -> int:
        """How many messages got an outcome since the lane began."""
        return self.recorded_total - self.backlog

    @property
    def paused(self) -> bool:
        """Whether an operator paused it."""
        return self.owner is not None and self.owner.startswith(PAUSED_BY)

    @property
    def needs_owner(self) -> bool:
        """Whether it holds something and nobody owns it."""
        return self.owner is None and bool(self.backlog or self.contexts or self.settled)


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One process that owns lanes, or may."""

    #: Its name: host, process id and a random number.
    worker: str
    #: Seconds until it counts as dead; negative if it does already.
    alive_seconds: float | None
    #: How many lanes it owns.
    lanes: int
    #: Messages without a receipt in these lanes.
    backlog: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """How fast messages come and go, measured between two looks."""

    #: How long was measured.
    interval_seconds: float
    #: Messages that callers recorded.
    recorded_per_second: float
    #: Messages that got their outcome.
    done_per_second: float


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """The totals of all lanes."""

    #: Processes that own lanes or may.
    workers: int
    #: All lanes.
    lanes: int
    #: Lanes that hold messages and have no owner.
    lanes_without_owner: int
    #: Lanes that an operator paused.
    lanes_paused: int
    #: Messages without a receipt.
    backlog: int
    #: Of these, those that no owner has sent yet.
    unsent: int
    #: Of these, those that were sent.
    sent: int
    #: Contexts that are not finished.
    contexts: int
    #: Contexts with an outcome whose result or callbacks are not done yet.
    settled: int
    #: Messages that were recorded since the lanes began.
    recorded_total: int
    #: Messages that got an outcome since the lanes began.
    done_total: int
    #: How long ago the oldest message without a receipt was recorded.
    oldest_age_seconds: float | None
    #: False if the age was computed from the deadline and the configured timeout.
    oldest_age_exact: bool
    #: Seconds until the next deadline; negative if it has passed.
    next_deadline_seconds: float | None
    #: Dead letters of all lanes.
    dead: int = 0
    #: How fast messages come and go; null if that was not measured.
    rates: Rates | None = None


class TopView(msgspec.Struct, frozen=True, kw_only=True):
    """One look at all lanes."""

    #: The totals, as ``status`` tells them, without rates.
    status: StatusView
    #: The lanes, as ``lanes`` tells them, those with the largest backlog first.
    lanes: list[LaneView]


class ContextView(msgspec.Struct, frozen=True, kw_only=True):
    """One context that is not finished."""

    #: The id of the call: by default the id of its task.
    context: str
    #: The lane that has it.
    lane: str
    #: The lane's topic, by its full name.
    topic: str
    #: ``unsent``, ``sent``, ``open``, ``settled`` or ``unreadable``.
    state: ContextState
    #: Seconds until its deadline; negative if it has passed; null for one that is settled.
    deadline_seconds: float | None
    #: How long ago it was recorded.
    age_seconds: float | None
    #: False if the age was computed from the deadline and the configured timeout.
    age_exact: bool
    #: How many messages it has; 0 for a context that ``acknowledger.produce`` made.
    messages: int
    #: The lane's number of its first message; 0 if it has none in this lane.
    number: int
    #: The Celery task whose result the outcome is.
    task: str | None
    #: The tasks that a receipt triggers.
    on_ack: str | None
    #: The tasks that a failure triggers.
    on_error: str | None
    #: Whether a process waits for its outcome.
    waits: bool
    #: The list that it is a message of, if that list spans lanes.
    parent: str | None


class ContextDetail(ContextView, frozen=True, kw_only=True):
    """One context, with all that is known of it but its payload."""

    #: The process that holds the lease of its lane; null if nobody does.
    owner: str | None
    #: How many messages of its lane are before it, at most.
    ahead: int | None
    #: The outcomes that are known: of all its messages if it is settled, else of some of a list.
    outcomes: list[dict[str, Any]]
