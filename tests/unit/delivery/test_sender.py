"""``delivery/sender.py``: what the end of a connection means for the lane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from celery_stargate.delivery import sender as sender_module
from celery_stargate.delivery.lease import Lease
from celery_stargate.delivery.log_reader import NewerRecord
from celery_stargate.delivery.sender import Sender
from celery_stargate.delivery.states import Event, State
from celery_stargate.delivery.watcher import Found
from celery_stargate.errors import ConfigurationError
from celery_stargate.lanes.leased import Unreadable
from celery_stargate.lanes.progress import Progress
from celery_stargate.model.dead_letters import DeadLetterRules, Policy
from celery_stargate.model.outcome import Failure
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.link import Blame, HandshakeRefused, LinkBroken
from celery_stargate.pulsar.sequence import DeduplicationUnavailable, SequenceMismatch
from tests.unit.delivery.rig import PartsRig, entry, until
from tests.unit.helpers import TOPIC

PERMANENT = HandshakeRefused(404, "Topic not found")
FOR_NOW = HandshakeRefused(503, "not now")


class FakeProducer:
    """Opens, or raises what the test says; receives nothing."""

    descriptor = 7

    def __init__(self, rig: Rig, query: dict[str, str]) -> None:
        self.rig = rig
        self.query = query
        self.sent = 0
        self.ended: list[str] = []

    async def open(self) -> None:
        if self.rig.errors:
            raise self.rig.errors.pop(0)

    async def send(self, *frames: bytes) -> None:
        self.sent += len(frames)
        self.rig.sent.set()

    async def replies(self) -> AsyncIterator[Sequence[bytes]]:
        await self.rig.broken.wait()
        if self.rig.breaks_when_sent:
            await until(lambda: self.sent)
        raise self.rig.breaks
        yield ()

    def rest(self, seconds: float) -> None:
        pass

    def abort(self) -> None:
        self.ended.append("abort")

    async def close(self) -> None:
        self.ended.append("close")


class Rig(PartsRig):
    """A sender whose producers are scripted, and whose backoff waits until it is let go."""

    def __init__(self, *numbers: int, sent: int = 0, **options: Any) -> None:
        super().__init__(*numbers, **options)
        #: Raised by the next opens, and by the checks of deduplication.
        self.errors: list[Exception] = []
        self.not_deduplicated: list[Exception] = []
        self.breaks: Exception = LinkBroken("cut")
        self.broken, self.sent = asyncio.Event(), asyncio.Event()
        #: Whether each connection lasts until something was sent.
        self.breaks_when_sent = False
        self.made: list[FakeProducer] = []
        self.checked = 0
        self.generations: list[str] = []
        self.read_progress = Progress(sent, sent, "g1", own=True)
        store: Any = self.store
        store.progress, store.begin_generation = self._progress, self._begin_generation
        services = replace(self.shared.services, producers=cast("Any", self))
        self.lane = replace(self.lane, shared=replace(self.shared, services=services))
        lease = Lease("x", 1000.0, lambda: self.clock)
        self.sender = Sender(self.lane, lease, self.in_flight, self.settler, self.queue)

    async def _progress(self) -> Progress:
        return self.read_progress

    async def _begin_generation(self, ended: str) -> str:
        self.generations.append(ended)
        return "g2"

    def make(self, topic: Topic, options: object, query: dict[str, str]) -> FakeProducer:
        self.made.append(FakeProducer(self, query))
        return self.made[-1]

    async def require_deduplication(self, topic: Topic, options: object) -> None:
        self.checked += 1
        if self.not_deduplicated:
            raise self.not_deduplicated.pop(0)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each backoff, none of which is waited for."""
    found: list[float] = []

    class Asyncio:
        get_running_loop = staticmethod(asyncio.get_running_loop)

        @staticmethod
        async def sleep(seconds: float) -> None:
            found.append(seconds)
            await asyncio.sleep(0)

    monkeypatch.setattr(sender_module, "asyncio", Asyncio)
    return found


def run(main: Callable[[], Any]) -> None:
    """Run it, in bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())


async def send_until(rig: Rig, condition: Callable[[], object]) -> None:
    """Run sender and settler until something is so."""
    tasks = [asyncio.ensure_future(part.run()) for part in (rig.sender, rig.settler)]
    try:
        await until(lambda: condition() or any(task.done() for task in tasks))
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.mark.parametrize(
    "error", [FOR_NOW, LinkBroken("no route"), ConfigurationError("no token")], ids=str
)
def test_no_connection_now(error: Exception, waits: list[float]) -> None:
    """It is tried again, after a wait each time, and nothing is failed."""

    async def main() -> None:
        rig = Rig(1)
        rig.errors = [error] * 3
        await send_until(rig, rig.sent.is_set)
        assert len(rig.made) == 4
        assert len(waits) == 3
        assert rig.store.settled == []
        assert all("close" in producer.ended for producer in rig.made)

    run(main)


def test_nothing_is_expected_between_two_connections(waits: list[float]) -> None:
    """A put that came then would call its message sent, though nobody sends it."""

    async def main() -> None:
        rig = Rig(1)
        rig.errors = [LinkBroken("no route")]
        rig.breaks_when_sent = True
        rig.broken.set()
        await send_until(rig, lambda: len(rig.made) == 3)
        assert rig.store.expected_nothing == 2

    run(main)


def test_a_newer_record_is_left_to_a_newer_worker(waits: list[float]) -> None:
    """The owner ends, a lease later at the earliest: deadlines had their time."""

    async def main() -> None:
        rig = Rig(1, 2)
        rig.store.reasons = {1: Unreadable.NEWER}
        with pytest.raises(NewerRecord, match="message 1 was recorded by a newer version"):
            await rig.sender.run()
        assert waits == [rig.lane.shared.settings.lease]
        assert rig.made == []

    run(main)


@pytest.mark.parametrize(
    ("blame", "connections"), [(Blame.FRAME_TOO_LARGE, 1), (Blame.UNCLEAR, 5)], ids=str
)
def test_a_message_that_breaks_each_connection(
    waits: list[float], blame: Blame, connections: int
) -> None:
    """It gets its failure, and the lane goes on."""

    async def main() -> None:
        rig = Rig(1)
        rig.store.forgets = True
        rig.breaks, rig.breaks_when_sent = LinkBroken("it broke", blame), True
        rig.broken.set()
        await send_until(rig, lambda: rig.store.settled)
        ((settled, outcome),) = rig.store.settled
        assert settled.context == "c1"
        assert isinstance(outcome, Failure)
        assert len(rig.made) == connections

    run(main)


def test_refused_for_good(waits: list[float]) -> None:
    """Every message in the log is failed: unknown, if it may have been sent before (P3)."""

    async def main() -> None:
        rig = Rig(1, 2, 3, sent=2)
        rig.errors = [PERMANENT]
        await send_until(rig, lambda: waits)
        failures = [outcome for _, outcome in rig.store.settled]
        assert [each.status for each in failures if isinstance(each, Failure)] == [
            *("unknown", "unknown", "refused")
        ]
        assert failures[0] == Failure(
            context="c1",
            topic=TOPIC,
            status="unknown",
            reason="Topic not found",
            code="http-404",
        )

    run(main)


def test_a_broker_that_does_not_deduplicate(waits: list[float]) -> None:
    """No producer is made; the next try asks again."""

    async def main() -> None:
        rig = Rig(1, delivery="effectively_once")
        rig.not_deduplicated = [DeduplicationUnavailable("not on", "no-deduplication")]
        await send_until(rig, rig.sent.is_set)
        assert rig.checked == 2
        ((_, outcome),) = rig.store.settled
        assert isinstance(outcome, Failure)
        assert (outcome.code, outcome.reason) == ("no-deduplication", "not on")
        (producer,) = rig.made
        assert producer.query == {
            "producerName": "stargate-0-g1",
            "initialSequenceId": "0",
            "sendTimeoutMillis": "0",
        }

    run(main)


@pytest.mark.parametrize(("regenerate", "begun"), [(True, ["g1"]), (False, [])])
def test_sequence_ids_that_are_not_the_lanes(
    waits: list[float], regenerate: bool, begun: list[str]
) -> None:
    """Another connection, with another generation where that is needed; the check is kept."""

    async def main() -> None:
        rig = Rig(1, delivery="effectively_once")
        rig.breaks = SequenceMismatch("an error receipt", regenerate=regenerate)
        rig.broken.set()
        await send_until(rig, lambda: waits)
        assert rig.generations == begun
        assert rig.checked == 1
        assert rig.made[0].ended[0] == "abort"
        assert len(rig.in_flight) == 0

    run(main)


def test_a_link_that_breaks_while_the_lane_is_given_back(waits: list[float]) -> None:
    """No other connection is made, and what had no receipt is in flight no more."""

    async def main() -> None:
        rig = Rig(1)

        def drained() -> bool:
            if rig.sent.is_set() and not rig.broken.is_set():
                assert rig.go_to(Event.DRAIN) in (State.LAST_BATCH, State.DRAINING)
                rig.broken.set()
            return rig.broken.is_set() and rig.state is State.DRAINING and not len(rig.in_flight)

        await send_until(rig, drained)
        assert len(rig.made) == 1
        assert waits == []

    run(main)


def test_a_lane_that_is_given_back_before_there_was_a_message() -> None:
    """A message that is found then is the next owner's."""

    async def main() -> None:
        rig = Rig()
        sending = asyncio.ensure_future(rig.sender.run())
        await rig.watcher.waits.get()
        rig.go_to(Event.DRAIN)
        rig.store.log.append(entry(1))
        rig.watcher.answers.put_nowait(Found())
        await until(lambda: len(rig.store.reads) == 2)
        for _ in range(10):
            await asyncio.sleep(0)
        assert rig.made == []
        assert rig.state is State.DRAINING
        sending.cancel()

    run(main)


def test_a_refusal_that_the_policy_says_to_retry(waits: list[float]) -> None:
    """Nothing is failed: the topic may be made meanwhile."""

    async def main() -> None:
        rig = Rig(1)
        rules = DeadLetterRules(policies={"http-404": Policy.RETRY})
        vars(rig.sender)["_rules"] = rules
        rig.errors = [PERMANENT, PERMANENT]
        await send_until(rig, rig.sent.is_set)
        assert len(rig.made) == 3
        assert len(waits) == 2
        assert rig.store.settled == []

    run(main)


def test_a_producer_that_cannot_be_made(waits: list[float]) -> None:
    """It is tried again: a token or a certificate may come."""

    async def main() -> None:
        rig = Rig(1)
        make, errors = rig.make, [ConfigurationError("no certificate")]

        def refuse(*given: Any) -> FakeProducer:
            if errors:
                raise errors.pop()
            return make(*given)

        vars(rig)["make"] = refuse
        await send_until(rig, rig.sent.is_set)
        assert len(waits) == 1
        assert rig.store.settled == []

    run(main)


def test_a_newer_record_that_is_gone_when_its_time_is_over(waits: list[float]) -> None:
    """Its deadline was applied meanwhile: the lane is kept, and what is behind it is sent."""

    async def main() -> None:
        rig = Rig(1, 2)
        rig.store.reasons = {1: Unreadable.NEWER}
        sending = asyncio.ensure_future(rig.sender.run())
        await until(lambda: waits)
        rig.store.log, rig.store.reasons = rig.store.log[1:], {}
        await until(rig.sent.is_set)
        assert not sending.done()
        sending.cancel()
        await asyncio.wait([sending])

    run(main)
