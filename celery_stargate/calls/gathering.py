"""One wait for the outcomes of many contexts."""

from __future__ import annotations

from collections.abc import Sequence

from celery_stargate.calls.inbox import Inbox, Ticket
from celery_stargate.lanes.inbox import Inboxes
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.outcome import Failure, Outcome
from celery_stargate.model.outcomes import CallOutcomes

__all__ = ["Gathered", "Gathering", "GatheringInbox"]


class Gathered:
    """The outcomes of many contexts that have arrived, in the order of the contexts.

    Arguments:
        contexts: their ids.
    """

    def __init__(self, contexts: Sequence[str]) -> None:
        self._places = {context: place for place, context in enumerate(contexts)}
        self._outcomes: list[Outcome | None] = [None] * len(contexts)
        self.missing = len(contexts)

    def take(self, outcome: Outcome) -> None:
        """Take in an outcome; a repeated one, or one of another wait, changes nothing."""
        place = self._places.get(outcome.context)
        if place is None or self._outcomes[place] is not None:
            return
        self._outcomes[place] = outcome
        self.missing -= 1

    def settled(self, topic: str) -> CallOutcomes:
        """Return all outcomes as those of one list, under the context that failed first.

        A context without an outcome failed: its deadline passed, and nobody could tell more.
        """
        outcomes = [
            deadline_failure(context, topic, sent=None) if outcome is None else outcome
            for context, outcome in zip(self._places, self._outcomes, strict=True)
        ]
        failures = [each for each in outcomes if isinstance(each, Failure)]
        unknown = [each for each in failures if each.status == "unknown"]
        first = (unknown or failures or outcomes)[0]
        return CallOutcomes(first.context, is_list=True, outcomes=tuple(outcomes))


class Gathering(Gathered):
    """One wait of a thread for the outcomes of many contexts.

    Arguments:
        ticket: its future is done when all outcomes have arrived.
        contexts: their ids.
    """

    def __init__(self, ticket: Ticket, contexts: Sequence[str]) -> None:
        super().__init__(contexts)
        self.ticket = ticket

    def take(self, outcome: Outcome) -> None:
        """Take in an outcome, and release the thread with the last one."""
        before = self.missing
        super().take(outcome)
        if before and not self.missing:
            self.ticket.future.set_result(None)
            self.ticket.waker.set()


class GatheringInbox(Inbox):
    """An inbox where a caller may also wait for many contexts with one ticket."""

    def __init__(self, inboxes: Inboxes, name: str | None = None) -> None:
        super().__init__(inboxes, name)
        self._gatherings: dict[str, Gathering] = {}

    def gather(self, contexts: Sequence[str]) -> Gathering:
        """Wait for the outcomes of contexts that are to be recorded with the ticket's address."""
        ticket = self.begin()
        gathering = Gathering(ticket, contexts)
        self._gatherings[ticket.address] = gathering
        return gathering

    def forget(self, ticket: Ticket) -> None:
        """Stop waiting with a ticket."""
        self._gatherings.pop(ticket.address, None)
        super().forget(ticket)

    def deliver(self, address: str, call: CallOutcomes) -> None:
        """Release the caller that waits with a ticket, once it has all that it waits for."""
        gathering = self._gatherings.get(address)
        if gathering is not None:
            for outcome in call.outcomes:
                gathering.take(outcome)
            return
        super().deliver(address, call)
