"""What the tests of a lane's parts share: a lane whose Redis and services are scripted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from celery_stargate.delivery.effects_queue import EffectsQueue
from celery_stargate.delivery.in_flight import InFlight
from celery_stargate.delivery.log_reader import LogReader
from celery_stargate.delivery.owned import OwnedLane
from celery_stargate.delivery.retry import Retry
from celery_stargate.delivery.settler import Settler
from celery_stargate.delivery.shared import Services, Shared, StageThreads
from celery_stargate.delivery.states import Event, State, lane_machine
from celery_stargate.delivery.telling import Telling
from celery_stargate.delivery.watcher import Found
from celery_stargate.effects.jobs import Job, Stage
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import LaneTick, Unreadable
from celery_stargate.lanes.progress import Progress
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.lanes.wire import SettleReply, StoredEntry
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import Decision, FollowUp, Remaining, ResultRow
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.outcome import Outcome, Receipt
from celery_stargate.model.settings import Settings
from celery_stargate.pulsar.window import Window
from tests.unit.helpers import TOPIC

IDLE = LaneTick(0, 0, 0, None)


def entry(number: int, follow_up: FollowUp = FollowUp.MORE) -> Entry:
    """Return a message of that number."""
    return Entry(number, f"c{number}", b"frame", follow_up=follow_up)


def receipt(number: int) -> Receipt:
    """Return the receipt of the message of that number."""
    return Receipt(context=f"c{number}", topic=TOPIC)


def settled(number: int) -> Settled:
    """Return the settled context of that number."""
    return Settled(Record(f"c{number}"), (receipt(number),), number)


class FakeStore:
    """A lane in Redis: its log is a list, and it notes what it is told."""

    log_key = "log"

    def __init__(self, lane: Lane, *numbers: int) -> None:
        self.lane = lane
        self.log = [entry(number) for number in numbers]
        #: Why messages may not be sent, by number, and which were set aside.
        self.reasons: dict[int, str] = {}
        self.unreadable: list[tuple[int, str]] = []
        self.aside: list[tuple[int, str]] = []
        #: Whether each read marked what it returned, and after which number it was.
        self.reads: list[tuple[int, bool]] = []
        #: For how many messages, and how many bytes, each read asked.
        self.asked: list[tuple[int, int]] = []
        #: After which number each look at large ones was, and for how many it asked.
        self.looks: list[tuple[int, int]] = []
        #: Whether a message that is settled leaves the log, as in Redis.
        self.forgets = False
        self.settled: list[tuple[Entry, Outcome]] = []
        #: How many outcomes each settle was given.
        self.batches: list[int] = []
        self.completed: list[str] = []
        self.rows: list[tuple[str, ResultRow]] = []
        self.told: list[tuple[str, Receipt]] = []
        self.finished: list[tuple[str, int]] = []
        #: Contexts that were given up, each with the cause of its dead letter.
        self.given_up: list[tuple[str, str]] = []
        #: Label and number of messages that are stored after all.
        self.confirmed: list[tuple[str, int]] = []
        #: What a settle answers beside the settled contexts.
        self.late: frozenset[int] = frozenset()
        self.fenced = False
        #: The places that a completion answers as late.
        self.late_places: frozenset[int] = frozenset()
        #: The number of the message that is waited for; 0: none.
        self.expected = 0
        #: The messages that were marked, by the id of their entry, until they are taken.
        self.marked: dict[bytes, Entry] = {}
        #: What each completion said that is waited for.
        self.told_of: list[int] = []
        #: How often nothing was expected any more.
        self.expected_nothing = 0
        #: Raised by the next calls of the method of that name.
        self.errors: dict[str, list[Exception]] = {}

    def _raise(self, name: str) -> None:
        if self.errors.get(name):
            raise self.errors[name].pop(0)

    async def look(self, after: int, count: int, size: int) -> list[Entry]:
        self._raise("look")
        self.looks.append((after, count))
        return [] if self.reasons else await self.read(after, count, size, mark=True)

    async def note(self, entries: Sequence[Entry]) -> list[Entry]:
        self._raise("note")
        return list(entries)

    async def read(
        self, after: int, count: int, size: int, *, mark: bool, gapless: bool = False
    ) -> list[Entry]:
        self._raise("read")
        self.reads.append((after, mark))
        self.asked.append((count, size))
        found: list[Entry] = []
        self.unreadable = []
        for each in [each for each in self.log if each.number > after][:count]:
            size -= len(each.frame)
            if size < 0 and found:
                break
            if (reason := self.reasons.get(each.number)) is None:
                found.append(each)
                continue
            self.unreadable.append((each.number, reason))
            if reason == Unreadable.NEWER:
                break
        if gapless:
            return [each for place, each in enumerate(found, after + 1) if each.number == place]
        return found

    async def set_aside(self, unreadable: Sequence[tuple[int, str]]) -> int:
        self._raise("set_aside")
        self.aside += unreadable
        gone = {number for number, _ in unreadable}
        self.log = [each for each in self.log if each.number not in gone]
        return len(unreadable)

    def take(self, stored: StoredEntry) -> Entry | None:
        return self.marked.pop(stored[0], None)

    async def expect_nothing(self) -> None:
        self._raise("expect_nothing")
        self.expected_nothing += 1

    async def settle(self, outcomes: Sequence[tuple[Entry, Outcome]], token: str) -> SettleReply:
        self._raise("settle")
        self.batches.append(len(outcomes))
        self.settled += outcomes
        if self.forgets:
            gone = {each.context for each, _ in outcomes}
            self.log = [each for each in self.log if each.context not in gone]
        found = [
            Settled(Record(each.context), (outcome,), each.first) for each, outcome in outcomes
        ]
        return SettleReply(found, self.late, self.fenced)

    async def confirm(self, stored: Sequence[tuple[str, int]]) -> None:
        self._raise("confirm")
        self.confirmed += stored

    async def complete(
        self,
        entries: Sequence[Entry],
        rows: Sequence[tuple[Entry, ResultRow]],
        token: str,
        waited_for: Sequence[tuple[Entry, Receipt]] = (),
    ) -> tuple[frozenset[int], bool]:
        self._raise("complete")
        self.told_of.append(self.expected)
        self.told += [(each.inbox, receipt) for each, receipt in waited_for]
        self.completed += [each.label for each in entries]
        self.rows += [(each.label, row) for each, row in rows]
        return self.late_places, self.fenced

    async def records(self, entries: Sequence[Entry]) -> dict[int, Record]:
        self._raise("records")
        return {each.number: Record(each.context) for each in entries}

    async def finish(self, done: Sequence[Settled]) -> None:
        self.finished += [each.identity for each in done]

    async def give_up(self, ended: Sequence[tuple[Settled, str]]) -> None:
        self.given_up += [(each.record.context, cause) for each, cause in ended]


class FakeEffects:
    """Does effects by noting them; leaves out those that are to fail."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.failing: set[str] = set()
        #: The way of each entry, by its label; by default its effects are done afterwards.
        self.ways: dict[str, Decision] = {}
        #: Whether somebody is told of successes, and of which they were.
        self.tells = False
        self.told: list[str] = []

    def tell(self, finished: Sequence[Settled]) -> None:
        self.told += [each.record.context for each in finished]

    def perform(self, stage: Stage, jobs: Sequence[Job]) -> list[Job]:
        self.runs.append([job.context for job in jobs])
        for job in jobs:
            if job.context in self.failing:
                job.interrupted.add(stage)
            elif stage in job.remaining:
                job.finish(stage)
        return []

    def hangs_for(self, stage: Stage) -> float:
        return 0.0

    def needs_records(self, given: Sequence[tuple[Entry, Outcome]]) -> list[Entry]:
        return [entry for entry, _ in given] if self.tells else []

    def at_once(
        self, given: Sequence[tuple[Entry, Outcome]], records: Mapping[int, Record]
    ) -> list[Decision]:
        return [self.ways.get(each.label, Remaining.FULL) for each, _ in given]


class FakeWatcher:
    """Says what was put as soon as the test does."""

    def __init__(self) -> None:
        self.waits: asyncio.Queue[int] = asyncio.Queue()
        self.answers: asyncio.Queue[Found | None] = asyncio.Queue()

    async def wait(self, log_key: str, after: int, timeout: float) -> Found | None:
        self.waits.put_nowait(after)
        return await self.answers.get()


class PartsRig:
    """The parts of a lane with the given messages in its log; to be made in a loop."""

    def __init__(self, *numbers: int, lane: Lane | None = None, **options: Any) -> None:
        self.store = FakeStore(lane or Lane(TOPIC), *numbers)
        self.effects = FakeEffects()
        self.watcher = FakeWatcher()
        self.revoked: set[str] = set()
        self.clock = 100.0
        self.executor = ThreadPoolExecutor(1)
        services = Services(
            producers=cast("Any", None),
            effects=cast("Any", self.effects),
            thread=lambda stage: self.executor,
            revoked=self.revoked.__contains__,
        )
        self.shared = Shared(
            settings=Settings(lease=3.0),
            threads=StageThreads(services.thread),
            services=services,
            watcher=cast("Any", self.watcher),
            renewals=cast("Any", None),
            rng=random.Random(1),
            monotonic=lambda: self.clock,
        )
        name = self.store.lane.name
        self.lane = OwnedLane(
            cast("Any", self.store),
            ProducerOptions(**options),
            self.shared,
            lane_machine(name),
            Retry(name, lambda low, high: 0.0),
            Telling(self.store.lane, lambda: self.clock, 2000),
        )
        self.in_flight = InFlight(Window(1000, 1 << 20))
        self.queue = EffectsQueue(self.lane, self.in_flight)
        self.log = LogReader(self.lane)
        self.settler = Settler(self.lane, self.in_flight, self.queue)

    def go_to(self, *events: Event) -> State:
        """Apply events to the lane's state."""
        for event in events:
            self.lane.machine.apply(event)
        return self.lane.machine.state

    @property
    def state(self) -> State:
        """The lane's state."""
        return self.lane.machine.state

    @staticmethod
    def progress(sent: int = 0) -> Progress:
        """Return how far the lane has come."""
        return Progress(sent, sent, "generation", own=True)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so, in bounded time."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is waited for tells no event
            await asyncio.sleep(0)
