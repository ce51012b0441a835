"""``delivery/log_reader.py``: what cannot be sent is set aside, and never makes the lane spin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import redis

from celery_stargate.delivery import log_reader
from celery_stargate.delivery.watcher import Found
from celery_stargate.lanes.leased import Unreadable
from celery_stargate.support.log import package_logger as logger
from tests.unit.delivery.rig import PartsRig, entry


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause, none of which is waited for."""
    found: list[float] = []

    class Asyncio:
        @staticmethod
        async def sleep(seconds: float) -> None:
            found.append(seconds)

    monkeypatch.setattr(log_reader, "asyncio", Asyncio)
    return found


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it, in bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())


async def read(rig: PartsRig) -> list[int]:
    """Return the numbers of what may be sent."""
    return [each.number for each in await rig.log.read(0, 100, 1 << 20, mark=True)]


def test_what_cannot_be_sent_is_set_aside(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, and logged once for many."""

    async def main() -> None:
        rig = PartsRig(1, 2, 3, 4, 5)
        rig.store.reasons = {2: Unreadable.ORPHAN, 4: Unreadable.DAMAGED}
        assert await read(rig) == [1, 3, 5]
        assert rig.store.aside == [(2, "orphan"), (4, "damaged")]
        rig.store.reasons[5] = Unreadable.EXPIRED
        assert await read(rig) == [1, 3]
        assert rig.lane.counters.set_aside == 3
        assert rig.log.newer is None

    with caplog.at_level("ERROR", logger.name):
        run(main)
    (record,) = caplog.records
    assert "2 entries" in record.getMessage()
    assert "number 2: there is no record of its context" in record.getMessage()


def test_large_messages_are_read_in_two_steps() -> None:
    """Unless something is amiss. What was said of a newer version is over then."""

    async def main() -> None:
        rig = PartsRig(1, 2, 3)
        rig.store.reasons = {1: Unreadable.NEWER}
        assert await read(rig) == []
        assert await rig.log.read_large(0, 100, 1 << 20) == []
        assert rig.log.newer is not None
        rig.store.reasons = {}
        found = await rig.log.read_large(1, 100, 1 << 20)
        assert [each.number for each in found] == [2, 3]
        assert rig.log.newer is None
        assert rig.store.looks == [(0, 32), (1, 32)]

    run(main)


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.TimeoutError("no answer within 5 s"),
        # So a Cluster's client says it.
        redis.exceptions.ConnectionError("the shard is down"),
        redis.exceptions.ResponseError("too large"),
        OSError("broken"),
    ],
    ids=["time", "connection", "refusal", "network"],
)
def test_large_messages_may_be_larger_than_expected(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Then they need a script, which reads no more than fits. It is logged, and fewer are next."""

    async def main() -> None:
        rig = PartsRig(*range(1, 100))
        rig.store.errors["look"] = [error] * 2
        for _ in range(2):
            assert await rig.log.read_large(0, 100, 1 << 20) == []
            assert len(await read(rig)) == 99
        assert rig.log.large_at_most == 8
        assert len(await rig.log.read_large(0, 100, 1 << 20)) == 8
        for _ in range(8):
            await rig.log.read_large(0, 100, 1 << 20)
        assert rig.log.large_at_most == 9

    with caplog.at_level("WARNING", logger.name):
        run(main)
    (record,) = caplog.records
    assert str(error) in record.getMessage()


def test_a_read_that_fails_asks_for_less(caplog: pytest.LogCaptureFixture) -> None:
    """So it does not fail for ever where its answer is too large. One message always fits."""

    async def main() -> None:
        rig = PartsRig(1, 2, 3)
        rig.store.errors["read"] = [redis.exceptions.ConnectionError("lost")] * 3
        full = rig.log.bytes_at_most
        assert await rig.log.read(0, 100, full, mark=True)
        assert rig.store.asked == [(100, full // 8)]
        assert full // 8 < rig.log.bytes_at_most < full // 4
        for _ in range(300):
            await rig.log.read(0, 100, full, mark=True)
        assert rig.log.bytes_at_most == full
        rig.store.errors["read"] = [redis.exceptions.ConnectionError("lost")] * 100
        assert len(await rig.log.read(0, 100, full, mark=True)) == 1

    run(main)


def test_a_newer_record_keeps_its_place() -> None:
    """Nothing behind it is read."""

    async def main() -> None:
        rig = PartsRig(1, 2, 3)
        rig.store.reasons = {2: Unreadable.NEWER}
        assert await read(rig) == [1]
        assert rig.store.aside == []
        assert "message 2" in str(rig.log.newer)
        rig.store.reasons = {}
        assert await read(rig) == [1, 2, 3]
        assert rig.log.newer is None

    run(main)


def test_what_wakes_the_lane_and_cannot_be_read_does_not_make_it_spin(pauses: list[float]) -> None:
    """Each wait that finds it anew pauses for longer; a message ends that."""

    async def main() -> None:
        rig = PartsRig()
        for _ in range(20):
            rig.watcher.answers.put_nowait(Found())
            assert await rig.log.wait(0, 60.0)
            assert await read(rig) == []
        assert len(pauses) == 19
        assert pauses[-1] >= 2.5
        rig.store.log = PartsRig(1).store.log
        assert await read(rig) == [1]
        rig.watcher.answers.put_nowait(Found())
        assert await rig.log.wait(1, 60.0)
        assert len(pauses) == 19

    run(main)


def test_a_message_that_its_put_marked_is_taken(pauses: list[float]) -> None:
    """It ends the waits that found nothing to read, as one that is read does."""

    async def main() -> None:
        rig = PartsRig()
        rig.watcher.answers.put_nowait(Found())
        found = await rig.log.wait(0, 60.0)
        assert found is not None
        assert rig.log.take(found) is None
        rig.store.marked[b"1-0"] = entry(1)
        for _ in range(2):
            rig.watcher.answers.put_nowait(Found((b"1-0", {})))
            found = await rig.log.wait(0, 60.0)
            assert found is not None
            taken = rig.log.take(found)
        assert taken is None
        assert [each.number for each in rig.store.log] == []
        assert len(pauses) == 1

    run(main)


def test_nothing_is_expected_in_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens then."""
    expected: list[int] = []

    async def main() -> None:
        rig = PartsRig()

        class Asyncio:
            @staticmethod
            async def sleep(seconds: float) -> None:
                del seconds
                expected.append(rig.store.expected)

        monkeypatch.setattr(log_reader, "asyncio", Asyncio)
        for _ in range(2):
            waiting = asyncio.ensure_future(rig.log.wait(7, 60.0, to_be_marked=True))
            await rig.watcher.waits.get()
            expected.append(rig.store.expected)
            rig.watcher.answers.put_nowait(Found())
            assert await waiting
        assert expected == [8, 0, 8]
        assert rig.store.expected == 0

    run(main)


def test_what_is_behind_is_read_at_once() -> None:
    """Where nothing of what was read can be sent, and all of it could be set aside."""

    async def main() -> None:
        rig = PartsRig(1, 2, 3, 4)
        rig.store.reasons = {1: Unreadable.ORPHAN, 2: Unreadable.DAMAGED}
        found = await rig.log.read(0, 2, 1 << 20, mark=True)
        assert [each.number for each in found] == [3, 4]
        assert [number for number, _ in rig.store.aside] == [1, 2]

    run(main)
