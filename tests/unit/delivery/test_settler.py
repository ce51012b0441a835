"""``delivery/settler.py``: each outcome is settled once, in batches, in the way that fits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec import structs
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from celery_stargate import observers
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import Fenced
from celery_stargate.model.follow_up import Remaining, ResultRow
from celery_stargate.model.outcome import Failure
from celery_stargate.observers import Observer, Settlement
from tests.unit.delivery.rig import PartsRig, entry, receipt, settled, until

ROW = ResultRow("key", "value", 0)


async def settle(rig: PartsRig, *numbers: int) -> None:
    """Give receipts, and settle until none is left."""
    for number in numbers:
        rig.settler.give(entry(number), receipt(number))
    running = asyncio.ensure_future(rig.settler.run())
    try:
        await until(lambda: running.done() or not (len(rig.settler) or rig.settler._stored_late))  # noqa: SLF001
        if running.done():
            await running
    finally:
        running.cancel()


def test_each_outcome_in_its_way() -> None:
    """With effects afterwards, with nothing, and with a result in the same step."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.effects.ways = {"c2": Remaining.NOTHING, "c3": ROW}
        await settle(rig, 1, 2, 3)
        return rig

    rig = asyncio.run(main())
    assert [each.context for each, _ in rig.store.settled] == ["c1"]
    assert rig.store.completed == ["c2"]
    assert rig.store.rows == [("c3", ROW)]
    assert len(rig.queue) == 1


def test_a_waiting_call_is_told_in_the_same_step() -> None:
    """Of a receipt; a failure may be a dead letter, and goes the whole way."""

    async def main() -> PartsRig:
        rig = PartsRig()
        waited_for = [structs.replace(entry(number), inbox="i/7") for number in (1, 2)]
        rig.settler.give(waited_for[0], receipt(1))
        rig.settler.give(waited_for[1], Failure(context="c2"))
        await settle(rig)
        return rig

    rig = asyncio.run(main())
    assert rig.store.told == [("i/7", receipt(1))]
    assert [each.context for each, _ in rig.store.settled] == ["c2"]


def test_no_message_is_expected_while_effects_are_slow() -> None:
    """It is not sent before they have caught up, and its deadline may pass by then."""

    async def main() -> None:
        rig = PartsRig(max_in_flight=1)
        rig.effects.ways = dict.fromkeys(("c1", "c2"), Remaining.NOTHING)
        rig.store.expected = 3
        await settle(rig, 1)
        rig.queue.add(settled(number) for number in range(100, 103))
        await settle(rig, 2)
        assert rig.store.told_of == [3, 0]

    asyncio.run(main())


def test_a_message_is_here_until_redis_knows_its_outcome() -> None:
    """Whoever waits for that is woken."""

    async def main() -> None:
        rig = PartsRig()
        rig.settler.give(entry(1), receipt(1))
        assert 1 in rig.settler
        waiting = asyncio.ensure_future(rig.settler.until_at_most(0))
        await asyncio.sleep(0)
        assert not waiting.done()
        await settle(rig)
        await asyncio.wait_for(waiting, 5)
        assert 1 not in rig.settler
        assert len(rig.settler) == 0

    asyncio.run(main())


def test_batches_are_bounded() -> None:
    """A script must not hold Redis for long."""

    async def main() -> list[int]:
        rig = PartsRig()
        sizes: list[int] = []
        plain = rig.effects.at_once

        def note(given: object, records: object) -> object:
            sizes.append(len(given))  # type: ignore[arg-type]
            return plain(given, records)  # type: ignore[arg-type]

        rig.effects.at_once = note  # type: ignore[assignment,method-assign]
        await settle(rig, *range(1, 451))
        return sizes

    assert asyncio.run(main()) == [200, 200, 50]


@pytest.mark.parametrize(("in_flight", "batches"), [(499, [1, 1]), (500, [2])])
def test_outcomes_gather_while_many_are_in_flight(in_flight: int, batches: list[int]) -> None:
    """With fewer, the callers may be waiting for these receipts before they go on."""

    async def main() -> list[int]:
        rig = PartsRig()
        for number in range(100, 100 + in_flight):
            rig.in_flight.window.add(entry(number))
        given = asyncio.ensure_future(rig.settler.run())
        rig.settler.give(entry(1), receipt(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rig.settler.give(entry(2), receipt(2))
        await until(lambda: len(rig.store.settled) == 2)
        given.cancel()
        return rig.store.batches

    assert asyncio.run(main()) == batches


def test_redis_away_meanwhile() -> None:
    """The same outcomes go again."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.store.errors["settle"] = [RedisConnectionError("gone")] * 2
        await settle(rig, 1)
        return rig

    assert [each.context for each, _ in asyncio.run(main()).store.settled] == ["c1"]


def test_a_redis_that_refuses_results_in_the_same_step(caplog: pytest.LogCaptureFixture) -> None:
    """They are stored afterwards, then and from then on."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.effects.ways = {"c1": ROW, "c2": ROW}
        rig.store.errors["complete"] = [ResponseError("NOPERM")]
        await settle(rig, 1)
        await settle(rig, 2)
        return rig

    rig = asyncio.run(main())
    assert [each.context for each, _ in rig.store.settled] == ["c1", "c2"]
    assert rig.store.rows == []
    assert caplog.text.count("Let its user SET and PUBLISH") == 1


def test_a_redis_that_refuses_to_settle_after_results(caplog: pytest.LogCaptureFixture) -> None:
    """What it has settled is not settled again, and its user's rights are not to blame."""
    rig: list[PartsRig] = []

    async def main() -> None:
        rig.append(PartsRig())
        rig[0].effects.ways = {"c1": ROW}
        rig[0].store.errors["settle"] = [ResponseError("OOM")]
        await settle(rig[0], 1, 2)

    with pytest.raises(ResponseError, match="OOM"):
        asyncio.run(main())
    assert rig[0].store.rows == [("c1", ROW)]
    assert rig[0].store.settled == []
    assert "Let its user" not in caplog.text


def test_successes_are_told_when_redis_knows_them() -> None:
    """All but what came too late, with the record that was read before; once."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.effects.tells = True
        rig.effects.ways = {"c1": Remaining.NOTHING, "c2": ROW, "c3": ROW}
        rig.store.errors["records"] = [RedisConnectionError("gone")]
        rig.store.late_places = frozenset({1})
        queue = asyncio.ensure_future(rig.queue.run())
        await settle(rig, 1, 2, 3, 4)
        await rig.lane.changes.until(lambda: rig.effects.told)
        await rig.lane.changes.until(lambda: len(rig.queue) == 0)
        queue.cancel()
        return rig

    rig = asyncio.run(main())
    assert rig.effects.told == ["c1", "c3"]
    assert rig.lane.counters.unmatched == 1
    assert [each.context for each, _ in rig.store.settled] == ["c4"]


def test_what_was_not_told_is_told_at_the_end() -> None:
    """Another owner would not: the contexts are finished."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.effects.tells = True
        rig.effects.ways = {"c1": ROW}
        await settle(rig, 1)
        assert len(rig.queue) == 1
        queue = asyncio.ensure_future(rig.queue.run())
        rig.queue._given.clear()  # noqa: SLF001  # it waits, and is ended
        await asyncio.sleep(0)
        queue.cancel()
        await asyncio.wait([queue])
        rig.executor.shutdown()
        return rig

    assert asyncio.run(main()).effects.told == ["c1"]


def test_without_the_lease() -> None:
    """What counted all the same is done, and the owner ends."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.store.fenced, rig.store.late = True, frozenset({0})
        with pytest.raises(Fenced):
            await settle(rig, 1)
        return rig

    rig = asyncio.run(main())
    assert len(rig.queue) == 1
    assert rig.lane.counters.unmatched == 1
    assert rig.store.confirmed == [("c1", 1)]


def test_what_is_stored_after_all_is_no_dead_letter() -> None:
    """A receipt that came late, by whichever way; a failure that did, is one still."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.effects.ways = {"c1": Remaining.NOTHING, "c2": ROW}
        rig.settler.give(structs.replace(entry(3), inbox="i/7"), receipt(3))
        rig.settler.give(entry(4), Failure(context="c4"))
        rig.store.late_places = frozenset({1, 2})
        rig.store.late = frozenset({0, 1})
        rig.store.errors["confirm"] = [RedisConnectionError("gone")]
        rig.settler.stored_late("c9", 9)
        await settle(rig, 1, 2, 5)
        return rig

    rig = asyncio.run(main())
    assert rig.lane.counters.unmatched == 4
    assert rig.store.confirmed == [("c9", 9), ("c2", 2), ("c3", 3), ("c5", 5)]


def test_failures_that_redis_ignores_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane's new owner finds out what becomes of those messages."""
    told: list[str] = []

    class Noting(Observer):
        def settled(
            self, lane: Lane, settlements: Sequence[Settlement], server: str | None = None
        ) -> None:
            told.extend(each.outcome.context for each in settlements)

    async def main() -> None:
        rig = PartsRig()
        rig.store.fenced = True
        rig.settler.give(entry(1), Failure(context="c1"))
        with pytest.raises(Fenced):
            await settle(rig, 2)
        rig.settler.give(entry(3), Failure(context="c3"))
        await rig.settler.hand_in()

    monkeypatch.setattr(observers, "_observers", (Noting(),))
    asyncio.run(main())
    assert told == ["c2"]


def test_handing_in() -> None:
    """What is here when the owner ends: settled once, its effects done; Redis may be away."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.settler.give(entry(1), receipt(1))
        rig.store.errors["settle"] = [RedisConnectionError("gone")]
        await rig.settler.hand_in()
        assert rig.store.settled == []
        await rig.settler.hand_in()
        return rig

    rig = asyncio.run(main())
    assert [each.context for each, _ in rig.store.settled] == ["c1"]
    assert rig.effects.runs == [["c1"]]
    assert rig.store.finished == [("c1", 1)]


@pytest.mark.parametrize("count", [0, 1])
def test_only_what_is_left_is_told(caplog: pytest.LogCaptureFixture, count: int) -> None:
    """Each lane of a worker whose Redis is away ends so, most of them with nothing to settle."""

    async def main() -> None:
        rig = PartsRig()
        for number in range(count):
            rig.settler.give(entry(number + 1), receipt(number + 1))
        rig.store.errors["settle"] = [RedisConnectionError("gone")]
        await rig.settler.hand_in()

    asyncio.run(main())
    assert caplog.text.count("outcomes were not settled") == count
