"""Sequence ids: with a broker that deduplicates, each message of a lane is stored once.

The lane's numbers are Pulsar's sequence ids, under a producer name that belongs to the lane as long
as its generation lasts. The WebSocket service counts by itself from ``initialSequenceId``, so one
connection sends only messages whose numbers follow one another. A message that was stored before is
then answered ``ok`` with ledger -1, whichever owner sends it again.

Source: Pulsar's "Message deduplication" page, and ``MessageDeduplication`` in pulsar-broker 4.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from celery_stargate.model.entry import Entry
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.link import Blame

__all__ = [
    "Alignment",
    "DeduplicationUnavailable",
    "Numbered",
    "SequenceMismatch",
    "leading_run",
    "producer_query",
]


class SequenceMismatch(Exception):
    """Pulsar's sequence ids may not be the lane's numbers any more: connect again."""

    def __init__(self, reason: str, *, regenerate: bool, blame: Blame = Blame.NONE) -> None:
        super().__init__(reason)
        #: What it says about the messages in flight, as in :class:`LinkBroken`.
        self.blame = blame
        #: Whether the lane needs a new generation first: under the present name Pulsar may treat a
        #: message to resend as a duplicate of another one.
        self.regenerate = regenerate


class Alignment:
    """Tracks whether Pulsar's sequence ids are still the lane's numbers on one connection.

    A message with an error receipt may have taken no sequence id: then later messages have ids that
    belong to others. After an error nothing more is sent on this connection. When nothing is in
    flight any more, it is known whether the id of a message to resend was used for another one.
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        #: The lowest number that must be sent again.
        self._again: int | None = None
        self._last_stored = 0
        #: The lowest number that was stored on this connection.
        self._first_stored: int | None = None
        self._last_unheard = 0
        self._over = False
        self._false_ok = False

    @property
    def lost(self) -> bool:
        """Whether the sequence ids may not be the lane's numbers any more."""
        return self._reason is not None

    def stored(self, number: int) -> None:
        """Note that Pulsar stored a message just now."""
        self._last_stored = max(self._last_stored, number)
        if self._first_stored is None or number < self._first_stored:
            self._first_stored = number

    def was_free(self, number: int) -> bool:
        """Return whether Pulsar knew no message of a number before this connection sent it.

        That is so if it stored a lower number just now, because it stores none below the highest
        that it knows. An ``ok`` that stored nothing is then for a copy that Pulsar's own client, in
        the WebSocket service, has sent again: it does so when the topic moves to another broker.
        """
        return self._first_stored is not None and number > self._first_stored

    def refused(self, reason: str) -> None:
        """Note that Pulsar refused a message for good."""
        self._reason = reason

    def failed(self, number: int, reason: str, *, over: bool) -> None:
        """Note that a message must be sent again.

        Arguments:
            number: of the message.
            reason: Pulsar's.
            over: whether the error ended the producer, so that no later message was stored.
        """
        self._reason = reason
        self._again = number if self._again is None else min(number, self._again)
        self._over = self._over or over

    def false_ok(self, number: int) -> None:
        """Note that Pulsar treats a message as a duplicate that was never sent before."""
        self._reason = (
            f"Pulsar treats message {number} as a duplicate, but it was never sent before"
        )
        self._false_ok = True

    def unheard(self, number: int) -> None:
        """Note that a message was sent and its receipt is not waited for any more."""
        self._last_unheard = max(self._last_unheard, number)

    def verdict(self) -> SequenceMismatch:
        """Return the exception that ends the session."""
        used = self._again is not None and (
            # A later message was, or may have been, stored under the sequence id of the one to
            # resend.
            self._last_stored > self._again or (self._last_unheard > self._again and not self._over)
        )
        return SequenceMismatch(self._reason or "", regenerate=self._false_ok or used)


class DeduplicationUnavailable(Exception):
    """The broker or the topic cannot do what ``effectively_once`` needs.

    Arguments:
        sentence: what is wrong, and what to do.
        code: a word for programs, as in a failure.
    """

    def __init__(self, sentence: str, code: str) -> None:
        super().__init__(sentence, code)
        self.sentence = sentence
        self.code = code

    def __str__(self) -> str:
        return self.sentence

    @classmethod
    def not_deduplicated(cls, topic: Topic) -> DeduplicationUnavailable:
        """Return the error for a broker that does not deduplicate a topic."""
        return cls(
            f"the broker does not deduplicate {topic}, which stargate_delivery='effectively_once' "
            "needs: set brokerDeduplicationEnabled=true, or enable deduplication for its namespace "
            "or the topic; or use 'at_least_once'",
            code="no-deduplication",
        )

    @classmethod
    def partitioned(cls, topic: Topic) -> DeduplicationUnavailable:
        """Return the error for a topic with partitions that have no lanes of their own."""
        return cls(
            f"{topic} has partitions, and stargate_delivery='effectively_once' has one lane for "
            "each: set partitions to their number in its options",
            code="partitioned",
        )

    @classmethod
    def without_partition(cls, topic: Topic, has: int, wanted: int) -> DeduplicationUnavailable:
        """Return the error for a topic with fewer partitions than its options say."""
        return cls(
            f"{topic} has {has or 'no'} partitions, and stargate_partitions is {wanted}: nobody "
            "would read what is sent to the others. "
            + (f"Set it to {has}" if has else "Leave it out")
            + f", or give the topic {wanted} partitions",
            code="no-partition",
        )


@dataclass(frozen=True, slots=True)
class Numbered:
    """What a session needs to judge replies where Pulsar's sequence ids are the lane's numbers."""

    #: The last number that may have been sent before under this producer name: only up to there can
    #: an ``ok`` that stored nothing mean that the topic has the message already.
    tried: int
    #: The partition whose lane it is; -1 where the topic has none.
    partition: int = -1


def producer_query(index: int, generation: str, first: int) -> dict[str, str]:
    """Return the producer's query parameters for a connection of a lane.

    ``sendTimeoutMillis`` is 0, or the service gives up on messages that it may have stored.

    Arguments:
        index: of the lane among its topic's lanes.
        generation: of the lane's numbers.
        first: the number of the first message to send.
    """
    return {
        "producerName": f"stargate-{index}-{generation}",
        "initialSequenceId": str(first - 1),
        "sendTimeoutMillis": "0",
    }


def leading_run(entries: Iterable[Entry], after: int) -> list[Entry]:
    """Return the first entries as far as their numbers follow one another, and ``after``."""
    numbered = enumerate(entries, after + 1)
    return [entry for _, entry in takewhile(lambda pair: pair[0] == pair[1].number, numbered)]
