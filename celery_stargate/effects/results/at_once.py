"""What the step that settles does of the effects: it stores a row, or nothing is left to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from celery_stargate.effects.results.rows import ResultRows
from celery_stargate.lanes.record import Record
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import Decision, FollowUp, Remaining
from celery_stargate.model.outcome import Outcome, Receipt
from celery_stargate.support.exits import as_error
from celery_stargate.support.log import logger_of

__all__ = ["AtOnce"]

logger = logger_of(__name__)


class AtOnce:
    """Decides what is left to do for outcomes, before they are settled.

    The log tells enough of most messages. The record of the others is read first: where a result
    may have a group or a parent, and where somebody is to be told of the success.

    Arguments:
        rows: makes the rows of results.
    """

    def __init__(self, rows: ResultRows) -> None:
        self._rows = rows

    @staticmethod
    def without_results(entry: Entry, outcome: Outcome) -> Decision:
        """Decide where the step cannot store results."""
        nothing = isinstance(outcome, Receipt) and entry.follow_up is FollowUp.NOTHING
        return Remaining.NOTHING if nothing else Remaining.FULL

    def needs(self, given: Iterable[tuple[Entry, Outcome]], *, tells: bool) -> list[Entry]:
        """Return the messages whose contexts' records are needed.

        Arguments:
            tells: whether somebody is to be told of successes.
        """
        wanted = {FollowUp.MORE, FollowUp.RESULT, FollowUp.IGNORED} if tells else {FollowUp.MORE}
        return [
            entry
            for entry, outcome in given
            if entry.follow_up in wanted
            and isinstance(outcome, Receipt)
            and entry.place < 0
            and not entry.inbox
        ]

    def decide(
        self,
        given: Iterable[tuple[Entry, Outcome]],
        records: Mapping[int, Record],
        *,
        tells: bool,
    ) -> list[Decision]:
        """Decide about outcomes.

        Arguments:
            records: what was found of those that are needed, by the messages' numbers.
            tells: whether somebody is to be told of successes.
        """
        self._rows.begin()
        found: list[Decision] = []
        for entry, outcome in given:
            way = self.without_results(entry, outcome)
            record = records.get(entry.number)
            if way is Remaining.FULL and isinstance(outcome, Receipt):
                try:
                    way = self._decide(entry, outcome, record, tells=tells)
                except BaseException as error:
                    # It raises again what is to end the program.
                    as_error(error)
                    logger.exception("a result will be stored by itself", context=outcome.context)
            found.append(way)
        return found

    def _decide(
        self, entry: Entry, receipt: Receipt, record: Record | None, *, tells: bool
    ) -> Decision:
        if entry.follow_up is not FollowUp.MORE:
            if tells and record is None:
                return Remaining.FULL
            return self._rows.decide_early(entry.task, entry.follow_up, receipt)
        if record is None or record.on_ack or record.inbox or record.parent or record.replayed:
            return Remaining.FULL
        return self._rows.decide_known(record, receipt)
