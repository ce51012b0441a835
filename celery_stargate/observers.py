"""Observers: who is told what happens to messages, in batches. By default there is nobody.

Signals, metrics and traces are observers. The core imports none of them: each adds itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Settled
from celery_stargate.model.dead_letters import DeadLetterRules
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Outcome
from celery_stargate.support.exits import as_error
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

__all__ = [
    "ConnectionLost",
    "LaneTakenOver",
    "MessageDeadLettered",
    "MessageRecorded",
    "Observer",
    "Settlement",
    "add",
    "anybody",
    "dead_lettered",
    "ended",
    "remove",
    "tell",
]

logger = logger_of(__name__)


class MessageRecorded(msgspec.Struct, frozen=True, kw_only=True):
    """A call is in its lane: from now on it gets its outcome, whichever process dies."""

    #: The id of the call.
    context: str
    #: The topic's full name.
    topic: str
    #: The names of the lanes of its messages, each once.
    lanes: tuple[str, ...]
    #: How many messages it has.
    messages: int = 1
    #: The name of its Celery task; None for a call without one.
    task: str | None = None


class MessageDeadLettered(msgspec.Struct, frozen=True, kw_only=True):
    """A message that failed is kept as a dead letter."""

    #: The id of its call.
    context: str
    #: The topic's full name.
    topic: str
    #: The name of its lane.
    lane: str
    #: Why it failed.
    outcome: Failure


class LaneTakenOver(msgspec.Struct, frozen=True, kw_only=True):
    """This process owns a lane now."""

    #: The name of the lane.
    lane: str
    #: The topic's full name.
    topic: str
    #: The name of this process.
    owner: str
    #: How often the lane has had an owner; 1 is the first time.
    fencing_token: int


class ConnectionLost(msgspec.Struct, frozen=True, kw_only=True):
    """A lane lost its connection to Pulsar, or could not make one; it is tried again."""

    #: The name of the lane.
    lane: str
    #: The topic's full name.
    topic: str
    #: How many messages were in flight; they are sent again.
    in_flight: int
    #: A sentence for people.
    reason: str
    #: The class of the error.
    error_type: str
    #: Pulsar's service URL.
    server: str | None = None


class Settlement(NamedTuple):
    """A message has its outcome, and Redis knows it."""

    outcome: Outcome
    #: The message as it was sent; None where it was settled otherwise, as by its deadline.
    entry: Entry | None = None
    #: When it was sent, and when its outcome came, by the monotonic clock, in seconds; None if this
    #: process did not see it.
    sent_at: float | None = None
    answered_at: float | None = None
    #: The context of its call's trace, where there is no entry to read it from.
    trace: Mapping[str, str] | None = None

    @property
    def seconds(self) -> float | None:
        """From its send to its outcome; None if this process did not see both."""
        if self.sent_at is None or self.answered_at is None:
            return None
        return max(0.0, self.answered_at - self.sent_at)


class Observer:
    """Is told what happens to messages in this process. Each method does nothing here.

    The methods are called in the thread in which it happens, mostly the acknowledger's event loop,
    so they must not wait. What they raise is logged.
    """

    def recorded(self, calls: Sequence[MessageRecorded]) -> None:
        """Calls of one topic were recorded."""

    def sent(self, lane: Lane, entries: Sequence[Entry]) -> None:
        """Messages are about to be written to a connection, for the first time or again."""

    def settled(
        self, lane: Lane, settlements: Sequence[Settlement], server: str | None = None
    ) -> None:
        """Messages have their outcomes.

        A receipt that comes after its message's deadline is told too, and changes nothing. A
        failure that Redis ignores, because another owner has the lane, is not told.

        Arguments:
            server: Pulsar's service URL; None where the outcome did not come from there.
        """

    def dead_lettered(self, dead: Sequence[MessageDeadLettered]) -> None:
        """Messages of one lane that failed are kept."""

    def taken_over(self, taken: LaneTakenOver) -> None:
        """This process owns a lane now."""

    def connection_lost(
        self, lost: ConnectionLost, unanswered: Sequence[tuple[Entry, float | None]]
    ) -> None:
        """A connection to Pulsar broke.

        Arguments:
            unanswered: the messages that were in flight, and when each was sent.
        """

    def redis_failed(self, error: Exception) -> None:
        """A call to the lanes' Redis failed; it is repeated."""


_observers: tuple[Observer, ...] = ()
_log_now = Seldom()


def add(observer: Observer) -> None:
    """Tell an observer from now on what happens in this process, and in its forked children."""
    global _observers  # noqa: PLW0603  # one list for the process, replaced as a whole
    if observer not in _observers:
        _observers = (*_observers, observer)


def remove(observer: Observer) -> None:
    """Tell an observer nothing more."""
    global _observers  # noqa: PLW0603  # as above
    _observers = tuple(each for each in _observers if each is not observer)


def anybody() -> bool:
    """Whether there is an observer. Without one, nothing is to be made for them."""
    return bool(_observers)


def tell(happened: Callable[[Observer], None]) -> None:
    """Tell each observer; one that raises harms neither the others nor delivery.

    Arguments:
        happened: calls the method of an observer.
    """
    for observer in _observers:
        try:
            happened(observer)
        except BaseException as error:
            # It raises again what is to end the program.
            as_error(error)
            if _log_now():
                logger.exception("%s raised an error; messages go on", type(observer).__name__)


def dead_lettered(lane: Lane, outcomes: Iterable[Outcome], rules: DeadLetterRules) -> None:
    """Tell of the messages among some settled ones that failed and are kept.

    Arguments:
        rules: which failures are kept.
    """
    if not _observers:
        return
    dead = [
        MessageDeadLettered(context=each.context, topic=lane.topic, lane=lane.name, outcome=each)
        for each in outcomes
        if isinstance(each, Failure) and rules.cause_of(each)
    ]
    if dead:
        tell(lambda each: each.dead_lettered(dead))


def ended(lane: Lane, settled: Iterable[Settled], rules: DeadLetterRules, *codes: str) -> None:
    """Tell of contexts that were settled otherwise than by Pulsar's answer.

    Arguments:
        settled: the contexts.
        rules: which failures are kept as dead letters.
        codes: of the failures that ended them; messages with another outcome had it before. Without
            codes all outcomes are told.
    """
    if not _observers or not lane.has_messages:
        return
    found = [
        Settlement(outcome, trace=each.trace)
        for each in settled
        for outcome in each.outcomes
        if not codes or (isinstance(outcome, Failure) and outcome.code in codes)
    ]
    if found:
        tell(lambda each: each.settled(lane, found))
        dead_lettered(lane, [each.outcome for each in found], rules)
