"""Numbers: how a lane's messages stand once in the topic, where the broker deduplicates.

The lane's numbers are Pulsar's sequence ids, under a producer name that is the lane's for as long
as its generation lasts. The WebSocket service counts by itself from ``initialSequenceId``, so one
connection sends only messages whose numbers follow one another. What was stored before is then
answered ``ok`` with ledger -1, by whichever owner it is sent again.

Source: Pulsar's "Message deduplication" page, and ``MessageDeduplication`` in pulsar-broker 4.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

from celery_stargate.model.entry import Entry
from celery_stargate.model.topic import Topic

__all__ = [
    "Alignment",
    "DeduplicationUnavailable",
    "Numbered",
    "SequenceMismatch",
    "leading_run",
    "producer_query",
]


class SequenceMismatch(Exception):
    """Pulsar's numbers are the lane's no more: the connection is to be made anew."""

    def __init__(self, reason: str, *, regenerate: bool) -> None:
        super().__init__(reason)
        #: Whether a message is to be sent again that Pulsar, under the present name, may take for
        #: one that it has.
        self.regenerate = regenerate


class Alignment:
    """Whether Pulsar's numbers are the lane's, on one connection.

    An error receipt may have taken no number: then what was sent behind its message has another's.
    From then on nothing more is sent there, and when all in flight has been heard of, it is
    known whether the number of a message that must go again was used for another.
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        #: The lowest number that must be sent again.
        self._again: int | None = None
        self._last_stored = 0
        self._last_unheard = 0
        self._over = False
        self._false_ok = False

    @property
    def lost(self) -> bool:
        """Whether the numbers may not fit any more."""
        return self._reason is not None

    def stored(self, number: int) -> None:
        """Note that Pulsar stored a message just now."""
        self._last_stored = max(self._last_stored, number)

    def refused(self, reason: str) -> None:
        """Note that Pulsar refused a message for good."""
        self._reason = reason

    def failed(self, number: int, reason: str, *, over: bool) -> None:
        """Note that a message must be sent again; ``over``: nothing behind it was stored."""
        self._reason = reason
        self._again = number if self._again is None else min(number, self._again)
        self._over = self._over or over

    def false_ok(self, number: int) -> None:
        """Note that Pulsar takes a message for one that it has, which it cannot have."""
        self._reason = (
            f"Pulsar takes message {number}, which was never sent before, for one that it has"
        )
        self._false_ok = True

    def unheard(self, number: int) -> None:
        """Note that nobody will hear what became of a message that was sent."""
        self._last_unheard = max(self._last_unheard, number)

    def verdict(self) -> SequenceMismatch:
        """Return what ends the connection."""
        used = self._again is not None and (
            # Behind one that must go again: stored, or perhaps stored, under its number.
            self._last_stored > self._again or (self._last_unheard > self._again and not self._over)
        )
        return SequenceMismatch(self._reason or "", regenerate=self._false_ok or used)


class DeduplicationUnavailable(Exception):
    """The broker or the topic cannot keep what effectively once promises.

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
        """The broker stores a message again that is sent again."""
        return cls(
            f"the broker does not deduplicate {topic}, which stargate_delivery='effectively_once' "
            "needs: set brokerDeduplicationEnabled=true, or enable deduplication for its namespace "
            "or the topic; or use 'at_least_once'",
            code="no-deduplication",
        )

    @classmethod
    def partitioned(cls, topic: Topic) -> DeduplicationUnavailable:
        """Each partition has numbers of its own."""
        return cls(
            f"{topic} has partitions, and stargate_delivery='effectively_once' has one lane for "
            "each: set partitions to their number in its options",
            code="partitioned",
        )


@dataclass(frozen=True, slots=True)
class Numbered:
    """What a session has to know to judge by numbers."""

    #: The last number that may have been sent before under this name: only up to there can an
    #: ``ok`` that stored nothing mean that the message stands in the topic already.
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
