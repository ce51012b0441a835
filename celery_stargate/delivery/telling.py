"""Tell observers what happens to one lane's messages, with the times of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from celery_stargate import observers
from celery_stargate.lanes.dead_letters import NO_DEAD_LETTERS
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.dead_letters import DeadLetterRules
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Outcome
from celery_stargate.observers import ConnectionLost, Settlement

__all__ = ["Telling"]


class Telling:
    """What observers are told of one lane. Without an observer nothing is kept and nothing is made.

    Arguments:
        lane: whose messages they are.
        monotonic: the clock, in seconds.
        limit: of how many messages the times are known.
        server: Pulsar's service URL.
        rules: which failures are kept as dead letters.
    """

    def __init__(
        self,
        lane: Lane,
        monotonic: Callable[[], float],
        limit: int,
        server: str | None = None,
        rules: DeadLetterRules = NO_DEAD_LETTERS,
    ) -> None:
        self._rules = rules
        self._lane = lane
        self._monotonic = monotonic
        self._limit = limit
        self._server = server
        #: When each message was sent, and answered, by its number.
        self._sent: dict[int, float] = {}
        self._answered: dict[int, float] = {}
        #: Whether the times of messages are noted.
        self.timed = False

    def sent(self, entries: Sequence[Entry]) -> None:
        """Tell that messages are written to the connection now."""
        self.timed = observers.anybody()
        if not self.timed:
            return
        numbers = [each.number for each in entries]
        for each in (self._sent, self._answered):
            # Those that were settled otherwise, or sent again, have left their times here.
            while len(each) > self._limit:
                del each[next(iter(each))]
        self._sent.update(dict.fromkeys(numbers, self._monotonic()))
        lane = self._lane
        observers.tell(lambda each: each.sent(lane, entries))

    def answered(self, number: int) -> None:
        """Note that the outcome of a message came; only while :attr:`timed`."""
        self._answered[number] = self._monotonic()

    def settled(self, batch: Sequence[tuple[Entry, Outcome]]) -> None:
        """Tell that Redis knows outcomes."""
        if not observers.anybody():
            return
        sent, answered, lane = self._sent.pop, self._answered.pop, self._lane
        found = [
            Settlement(outcome, entry, sent(entry.number, None), answered(entry.number, None))
            for entry, outcome in batch
        ]
        observers.tell(lambda each: each.settled(lane, found, self._server))
        observers.dead_lettered(lane, [outcome for _, outcome in batch], self._rules)

    def lost(self, error: Exception, entries: Sequence[Entry]) -> None:
        """Tell that the connection broke with messages in flight, or could not be made."""
        if not observers.anybody():
            return
        told = ConnectionLost(
            lane=self._lane.name,
            topic=self._lane.topic,
            in_flight=len(entries),
            reason=str(error),
            error_type=type(error).__name__,
            server=self._server,
        )
        unanswered = [(each, self._sent.get(each.number)) for each in entries]
        observers.tell(lambda each: each.connection_lost(told, unanswered))
