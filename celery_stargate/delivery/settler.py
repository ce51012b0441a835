"""Settle messages: tell Redis their outcomes, in batches."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis.exceptions import ResponseError

from celery_stargate.delivery.effects_queue import EffectsQueue
from celery_stargate.delivery.in_flight import InFlight
from celery_stargate.delivery.owned import OwnedLane
from celery_stargate.lanes.connections import UNAVAILABLE
from celery_stargate.lanes.leased import Fenced
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import Decision, Remaining, ResultRow
from celery_stargate.model.outcome import Outcome, Receipt
from celery_stargate.support.log import logger_of

__all__ = ["Settler"]

logger = logger_of(__name__)

#: How many outcomes one script settles at most: a script must not hold Redis for long.
_BATCH = 200
#: With this many messages in flight, more receipts will come soon: one script waits for them this
#: many seconds, because a script for a few costs as much as one for many. With fewer, the callers
#: may be waiting for these receipts before they go on.
_COALESCE_ABOVE, _COALESCE_DELAY = 500, 0.005


@dataclass(frozen=True, slots=True)
class _Settlement:
    """What Redis answered to a batch."""

    #: Contexts that have all their outcomes, and wait for their effects.
    settled: Sequence[Settled] = ()
    #: What came too late and changed nothing.
    late: Sequence[tuple[Entry, Outcome]] = ()
    #: Whether another owner has the lane.
    fenced: bool = False


class Settler:
    """The outcomes of one lane that Redis does not know yet.

    Arguments:
        lane: whose they are.
        in_flight: whether more outcomes are about to come.
        effects: gets the contexts that have all their outcomes.
    """

    def __init__(self, lane: OwnedLane, in_flight: InFlight, effects: EffectsQueue) -> None:
        self._lane = lane
        self._in_flight = in_flight
        self._effects = effects
        self._outcomes: list[tuple[Entry, Outcome]] = []
        #: The numbers of their messages.
        self._numbers: set[int] = set()
        #: Label and number of messages that proved to be stored after they got another outcome.
        self._stored_late: list[tuple[str, int]] = []
        self._given = asyncio.Event()
        #: Whether Redis refused to store results in the step that settles.
        self._results_later = False

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def give(self, entry: Entry, outcome: Outcome) -> None:
        """Take the outcome of a message."""
        self._outcomes.append((entry, outcome))
        self._numbers.add(entry.number)
        if self._lane.telling.timed:
            self._lane.telling.answered(entry.number)
        self._given.set()

    def stored_late(self, label: str, number: int) -> None:
        """Note that a message is stored although it has another outcome."""
        self._stored_late.append((label, number))
        self._given.set()

    async def until_at_most(self, count: int) -> None:
        """Wait until at most ``count`` outcomes are not settled."""
        await self._lane.changes.until(lambda: len(self._numbers) <= count)

    async def run(self) -> None:
        """Settle what is given, until cancelled.

        Raises:
            Fenced: another owner has the lane.
            Whatever redis-py raises, except that Redis is not available.
        """
        while True:
            await self._given.wait()
            self._given.clear()
            fenced = False
            while self._outcomes or self._stored_late:
                if self._outcomes:
                    fenced = await self._settle_some()
                if self._stored_late:
                    await self._confirm()
                if fenced:
                    raise Fenced

    async def hand_in(self) -> None:
        """Settle the outcomes that are left, without the lease: receipts still count."""
        store = self._lane.store
        try:
            settled, _, fenced = await store.settle(self._outcomes, uuid.uuid4().hex)
            self._tell(self._outcomes, fenced=fenced)
            await self._effects.hand_in(settled)
        except UNAVAILABLE as error:
            if self._outcomes:
                logger.warning(
                    "%d outcomes were not settled; the next owner sends these messages again: %s",
                    len(self._outcomes),
                    error,
                    lane=self._lane.name,
                )

    async def _settle_some(self) -> bool:
        """Settle the next outcomes; return whether another owner has the lane."""
        if len(self._outcomes) < _BATCH and len(self._in_flight) >= _COALESCE_ABOVE:
            await asyncio.sleep(_COALESCE_DELAY)
        batch = self._outcomes[:_BATCH]
        answer = await self._settle(batch)
        del self._outcomes[: len(batch)]
        self._numbers.difference_update([entry.number for entry, _ in batch])
        self._count_late(answer.late)
        self._tell(batch, fenced=answer.fenced)
        self._effects.add(answer.settled)
        self._lane.changes.notify()
        return answer.fenced

    def _tell(self, outcomes: Sequence[tuple[Entry, Outcome]], *, fenced: bool) -> None:
        """Notify observers of what Redis accepted: without the lease, receipts only."""
        if fenced:
            outcomes = [each for each in outcomes if isinstance(each[1], Receipt)]
        if outcomes:
            self._lane.telling.settled(outcomes)

    def _count_late(self, late: Sequence[tuple[Entry, Outcome]]) -> None:
        if late:
            self._lane.counters.unmatched += len(late)
            logger.info(
                "%d outcomes came too late and changed nothing", len(late), lane=self._lane.name
            )
            self._stored_late += [
                (entry.label, entry.number)
                for entry, outcome in late
                if isinstance(outcome, Receipt)
            ]

    async def _confirm(self) -> None:
        """Forget the dead letters of messages that are stored after all."""
        some = self._stored_late[:_BATCH]
        await self._lane.retry.until_available(self._lane.store.confirm, some)
        del self._stored_late[: len(some)]

    async def _settle(self, batch: Sequence[tuple[Entry, Outcome]]) -> _Settlement:
        """Settle some outcomes; store results in the same step where that is possible."""
        waited_for: list[tuple[Entry, Receipt]] = []
        rest: list[tuple[Entry, Outcome]] = []
        for entry, outcome in batch:
            if entry.inbox and isinstance(outcome, Receipt):
                waited_for.append((entry, outcome))
            else:
                rest.append((entry, outcome))
        if not rest:
            return await self._settle_by([], [], {}, waited_for)
        effects, retry = self._lane.shared.services.effects, self._lane.retry
        needed = effects.needs_records(rest)
        records: dict[int, Record] = {}
        if needed:
            records = await retry.until_available(self._lane.store.records, needed)
        ways = effects.at_once(rest, records)
        if self._results_later:
            ways = _with_results_later(ways)
        return await self._settle_by(ways, rest, records, waited_for)

    async def _settle_by(
        self,
        ways: Sequence[Decision],
        rest: Sequence[tuple[Entry, Outcome]],
        records: Mapping[int, Record],
        waited_for: Sequence[tuple[Entry, Receipt]],
    ) -> _Settlement:
        """Settle some outcomes.

        Arguments:
            ways: of the rest, as :meth:`Effects.at_once` says.
            records: of the rest, as far as they were needed.
            waited_for: receipts of which a waiting call is told in the step that settles.
        """
        fire_and_forget, results, given = [], [], []
        for (entry, outcome), way in zip(rest, ways, strict=True):
            if way is Remaining.FULL:
                given.append((entry, outcome))
            elif way is Remaining.NOTHING:
                fire_and_forget.append(entry)
            else:
                results.append((entry, way))
        settled: Sequence[Settled] = ()
        late: list[tuple[Entry, Outcome]] = []
        fenced = False
        store, retry = self._lane.store, self._lane.retry
        if fire_and_forget or results or waited_for:
            token = uuid.uuid4().hex
            if not self._effects.keeps_up:
                # The next message stays in Redis until they do, and is read then.
                store.expected = 0
            try:
                places, fenced = await retry.until_available(
                    store.complete, fire_and_forget, results, token, waited_for
                )
            except UNAVAILABLE:
                raise
            except ResponseError:
                if not results:
                    raise
                # Redis would refuse it each time, and the messages would be sent again and again.
                self._results_later = True
                logger.error(
                    "Redis refuses to settle messages and store their results in one step; results "
                    "are stored after it. Let its user SET and PUBLISH the keys of results",
                    lane=self._lane.name,
                )
                later = _with_results_later(ways)
                return await self._settle_by(later, rest, records, waited_for)
            completed = [*fire_and_forget, *(entry for entry, _ in results)]
            tells = records and self._lane.shared.services.effects.tells
            outcomes: dict[int, Outcome] = {}
            if places or tells:
                outcomes = {each.number: outcome for each, outcome in (*rest, *waited_for)}
            if places:
                asked = [*completed, *(entry for entry, _ in waited_for)]
                late += [(asked[place], outcomes[asked[place].number]) for place in sorted(places)]
            if tells:
                self._effects.tell(
                    Settled(records[entry.number], (outcomes[entry.number],), entry.first)
                    for place, entry in enumerate(completed)
                    if place not in places and entry.number in records
                )
        if given:
            token = uuid.uuid4().hex
            settled, more, lost = await retry.until_available(store.settle, given, token)
            late += [given[place] for place in sorted(more)]
            fenced = fenced or lost
        return _Settlement(settled, late, fenced)


def _with_results_later(ways: Sequence[Decision]) -> list[Decision]:
    """Return decisions by which results are stored after the step that settles."""
    return [Remaining.FULL if isinstance(way, ResultRow) else way for way in ways]
