"""Find the message that breaks each connection, so that it does not block its lane.

A connection that breaks takes the receipts of all messages in flight with it, and does not say
which of them it broke at. If the next connection breaks with some of the same messages in flight,
these are sent a few at a time, and then one at a time. A message that breaks a connection alone is
the culprit: it gets its failure, and the lane goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from celery_stargate.model.entry import Entry
from celery_stargate.model.frame import frame_size
from celery_stargate.model.outcome import Failure, failure_status
from celery_stargate.pulsar.link import Blame, LinkBroken
from celery_stargate.pulsar.sequence import SequenceMismatch
from celery_stargate.pulsar.window import Window
from celery_stargate.support.machine import Machine

__all__ = ["SUSPICION_TRANSITIONS", "Suspicion", "SuspicionEvent", "SuspicionState"]


class SuspicionState(Enum):
    """How many messages may be in flight."""

    NONE = "none"  #: as many as the window has room for; nothing is suspected
    NOTED = "noted"  #: as many; those in flight when the last connection broke are noted
    FEW = "few"  #: a few, until all that are suspected have their outcomes
    ALONE = "alone"  #: one, until all that are suspected have their outcomes


class SuspicionEvent(Enum):
    """What happens to the messages that are suspected."""

    BROKE = "broke"  #: a connection broke, with suspected messages in flight
    BROKE_BY_ONE = "broke by one"  #: the same, and surely by one of them
    CLEARED = "cleared"  #: all of them have their outcomes


SUSPICION_TRANSITIONS: Mapping[SuspicionState, Mapping[SuspicionEvent, SuspicionState]] = {
    SuspicionState.NONE: {
        SuspicionEvent.BROKE: SuspicionState.NOTED,
        SuspicionEvent.BROKE_BY_ONE: SuspicionState.FEW,
    },
    SuspicionState.NOTED: {
        SuspicionEvent.BROKE: SuspicionState.FEW,
        SuspicionEvent.BROKE_BY_ONE: SuspicionState.FEW,
        SuspicionEvent.CLEARED: SuspicionState.NONE,
    },
    SuspicionState.FEW: {
        SuspicionEvent.BROKE: SuspicionState.ALONE,
        SuspicionEvent.BROKE_BY_ONE: SuspicionState.ALONE,
        SuspicionEvent.CLEARED: SuspicionState.NONE,
    },
    SuspicionState.ALONE: {
        SuspicionEvent.BROKE: SuspicionState.ALONE,
        SuspicionEvent.BROKE_BY_ONE: SuspicionState.ALONE,
        SuspicionEvent.CLEARED: SuspicionState.NONE,
    },
}

#: How many messages may be in flight: of a window of 1,000 these are 32 steps, then 32 more.
_LIMITS = {SuspicionState.FEW: 32, SuspicionState.ALONE: 1}
#: How many connections in a row a message must break alone, where it is not clear that it did. A
#: broker that fails again and again breaks them, too; so each further culprit takes twice as many,
#: until some message has a receipt.
_BREAKS = 5


class Suspicion:
    """The messages of one lane that may have broken its connections.

    Arguments:
        lane: its name.
    """

    def __init__(self, lane: str) -> None:
        self._machine = Machine(
            f"the suspicion of lane {lane}", SUSPICION_TRANSITIONS, SuspicionState.NONE
        )
        #: The numbers of those that were in flight each time.
        self._suspects: set[int] = set()
        #: The highest number that may have been sent before the first of these breaks, and whether
        #: each of them was for the size of a frame. The culprit was too large each time then, and
        #: is not stored. Any other culprit may have been stored when it was not alone.
        self._sent_before = 0
        self._by_size = True
        #: The message that was in flight alone the last time, and how often in a row.
        self._alone = 0
        self._times = 0
        #: How many unclear culprits there were since the last receipt, and the count of receipts.
        self._unclear = 0
        self._receipts = 0

    @property
    def state(self) -> SuspicionState:
        """How many messages may be in flight."""
        return self._machine.state

    def limit(self, after: int, window: Window) -> int | None:
        """Return how many messages may be in flight now; None for no other bound than the window's.

        Arguments:
            after: the number of the last message that was read for this connection.
            window: the messages in flight.
        """
        if not self._suspects:
            return None
        oldest = next(iter(window), None)
        last = max(self._suspects)
        if after >= last and (oldest is None or oldest.number > last):
            self._clear()
        return _LIMITS.get(self.state)

    def broke(
        self,
        error: LinkBroken | SequenceMismatch,
        in_flight: Sequence[Entry],
        *,
        forgotten: int = 0,
        sent_before: int,
        receipts: int,
        topic: str,
    ) -> tuple[Entry, Failure] | None:
        """Note that a connection broke.

        Arguments:
            error: how.
            in_flight: the messages without a receipt, in the lane's order.
            forgotten: how many more were sent, and have their outcome otherwise: it may be one of
                these that broke it, and they are not sent again.
            sent_before: the highest number that may have been sent before this connection.
            receipts: how many receipts the lane has had so far.
            topic: for the failure.

        Returns:
            The message that breaks the connections, and its failure, if it is found.
        """
        if isinstance(error, LinkBroken) and error.entry is not None:
            in_flight, forgotten = [error.entry], 0
        if not in_flight or error.blame is Blame.NONE:
            return None
        self._note({each.number for each in in_flight}, error.blame, sent_before)
        if receipts > self._receipts:
            self._unclear = 0
        if len(in_flight) + forgotten > 1:
            return None
        culprit = in_flight[0]
        self._times = self._times + 1 if culprit.number == self._alone else 1
        self._alone = culprit.number
        if self._times < (1 if error.blame.certain else _BREAKS << self._unclear):
            return None
        if not error.blame.certain:
            self._unclear += 1
        self._receipts = receipts
        failure = self._failure(culprit, error, sent_before, topic)
        self._suspects.discard(culprit.number)
        if not self._suspects:
            self._clear()
        return culprit, failure

    def _note(self, numbers: set[int], blame: Blame, sent_before: int) -> None:
        """Suspect those that were in flight this time and each time before."""
        common = self._suspects & numbers
        if self._suspects and not common:
            # It broke at others: that is another matter.
            self._clear()
        if not common:
            common, self._sent_before, self._by_size = numbers, sent_before, True
        self._suspects = common
        self._by_size = self._by_size and blame is Blame.FRAME_TOO_LARGE
        by_one = SuspicionEvent.BROKE_BY_ONE
        self._machine.apply(by_one if blame.certain else SuspicionEvent.BROKE)

    def _clear(self) -> None:
        self._suspects.clear()
        self._machine.apply(SuspicionEvent.CLEARED)

    def _failure(
        self, entry: Entry, error: LinkBroken | SequenceMismatch, sent_before: int, topic: str
    ) -> Failure:
        sent = entry.number
        match error.blame:
            case Blame.FRAME_TOO_LARGE:
                if self._by_size:
                    sent = self._sent_before
                reason = (
                    "Pulsar closes the connection at this message: its frame of "
                    f"{frame_size(entry.frame)} bytes is too large. Set stargate_max_frame_size to "
                    "the broker's webSocketMaxTextFrameSize, or raise that"
                )
                code = "frame-too-large"
            case Blame.REPLY_TOO_LARGE:
                reason = (
                    "Pulsar's reply to this message is too large to be read; it repeats the "
                    f"context, which has {len(entry.label)} characters: use a shorter one"
                )
                code = "reply-too-large"
            case Blame.UNREADABLE:
                sent = sent_before
                reason, code = f"Pulsar cannot read this message: {error}", "unreadable"
            case _:
                reason = f"the connection broke each time this message was sent alone: {error}"
                code = "breaks-connection"
        return Failure(
            context=entry.context,
            topic=topic,
            status=failure_status(entry.number, sent),
            reason=reason,
            code=code,
        )
