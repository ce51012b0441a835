"""``delivery/owner.py``: how an ownership ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from celery_stargate.delivery.owner import LaneOwner
from celery_stargate.delivery.states import Event, State
from celery_stargate.lanes.leased import Fenced, StoreRolledBack
from celery_stargate.support.log import package_logger as logger
from tests.unit.delivery.rig import PartsRig, entry, receipt, until


class Rig(PartsRig):
    """An owner whose parts wait for ever, but for what the test puts in their place."""

    def __init__(self) -> None:
        super().__init__()
        self.owner: Any = LaneOwner(self.lane.store, self.lane.options, self.shared)
        for part in ("_keeper", "_settler", "_effects", "_sender"):
            getattr(self.owner, part).run = self._wait
        #: How often the lane's generation was disowned.
        self.disowned = 0
        cast("Any", self.store).disown_generation = self._disown_generation

    async def _wait(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def _disown_generation(self) -> None:
        self.disowned += 1

    @property
    def machine(self) -> Any:
        """The owner's state machine."""
        return self.owner._lane.machine  # noqa: SLF001

    def give(self, number: int) -> None:
        """Give the settler an outcome."""
        self.owner._settler.give(entry(number), receipt(number))  # noqa: SLF001

    def forget_outcomes(self) -> None:
        """Let the settler have none, as if Redis knew them all."""
        self.owner._settler._numbers.clear()  # noqa: SLF001
        self.owner._lane.changes.notify()  # noqa: SLF001


def run(main: Callable[[], Any]) -> None:
    """Run it, in bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await main()

    asyncio.run(bounded())


def test_drained_with_nothing_in_flight() -> None:
    """It ends at once."""

    async def main() -> None:
        rig = Rig()
        running = asyncio.ensure_future(rig.owner.run())
        await rig.owner.drain(5.0)
        assert rig.machine.state is State.STOPPED
        await running

    run(main)


@pytest.mark.parametrize("error", [None, ResponseError("refused")])
def test_a_drained_owner_expects_no_message(error: Exception | None) -> None:
    """A put that marked one now would call it sent, though nobody sends it.

    Whatever Redis says to that, the drain ends with what is in flight.
    """

    async def main() -> None:
        rig = Rig()
        rig.give(1)
        rig.store.expected = 2
        errors = rig.store.errors["expect_nothing"] = [error] if error else []
        running = asyncio.ensure_future(rig.owner.run())
        draining = asyncio.ensure_future(rig.owner.drain(5.0))
        await until(lambda: not errors and rig.store.expected_nothing == (error is None))
        assert rig.store.expected == 0
        assert not draining.done()
        rig.forget_outcomes()
        await draining
        await running

    run(main)


def test_drained_while_redis_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """An owner that has nothing in flight does not wait for it."""

    async def main() -> None:
        rig = Rig()
        rig.store.errors["expect_nothing"] = [RedisConnectionError("away")] * 1000
        running = asyncio.ensure_future(rig.owner.run())
        await rig.owner.drain(60.0)
        await running

    with caplog.at_level("WARNING", logger.name):
        run(main)
    assert not caplog.records


def test_drained_with_an_outcome_that_redis_does_not_know() -> None:
    """It waits for that."""

    async def main() -> None:
        rig = Rig()
        rig.give(1)
        running = asyncio.ensure_future(rig.owner.run())
        draining = asyncio.ensure_future(rig.owner.drain(5.0))
        await until(lambda: rig.machine.state is State.DRAINING)
        assert not draining.done()
        rig.forget_outcomes()
        await draining
        await running

    run(main)


def test_drained_while_a_batch_is_on_its_way(caplog: pytest.LogCaptureFixture) -> None:
    """It waits until that is sent, or the time is over."""

    async def main() -> None:
        rig = Rig()
        for event in (Event.FOUND, Event.OPENED, Event.READ):
            rig.machine.apply(event)
        await rig.owner.drain(0.01)
        assert rig.machine.state is State.STOPPED

    with caplog.at_level("WARNING", logger.name):
        run(main)
    assert "left to the next owner" in caplog.text


def test_drained_twice() -> None:
    """As when a worker stops while it hands a lane over."""

    async def main() -> None:
        rig = Rig()
        running = asyncio.ensure_future(rig.owner.run())
        await asyncio.gather(rig.owner.drain(5.0), rig.owner.drain(5.0))
        await running
        await rig.owner.drain(5.0)

    run(main)


@pytest.mark.parametrize("part", ["_keeper", "_settler", "_effects", "_sender"])
def test_the_lease_is_lost(part: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whichever part finds it: the receipts that are here still count, and a drain ends."""

    async def main() -> None:
        rig = Rig()
        rig.give(1)

        async def fenced() -> None:
            raise Fenced

        getattr(rig.owner, part).run = fenced
        await rig.owner.run()
        assert [each.context for each, _ in rig.store.settled] == ["c1"]
        assert not rig.disowned
        await rig.owner.drain(5.0)

    with caplog.at_level("WARNING", logger.name):
        run(main)
    assert "another owner has it now" in caplog.text


def test_redis_came_back_with_an_older_state(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing new goes under the generation: its numbers were used."""

    async def main() -> None:
        rig = Rig()

        async def rolled_back() -> None:
            raise StoreRolledBack

        rig.owner._keeper.run = rolled_back  # noqa: SLF001
        await rig.owner.run()
        assert rig.disowned == 1

    run(main)
    assert "an older state" in caplog.text


def test_a_part_that_fails() -> None:
    """Its error is the owner's, and the lane is released."""

    async def main() -> None:
        rig = Rig()

        async def fail() -> None:
            raise ValueError("broken on purpose")

        rig.owner._settler.run = fail  # noqa: SLF001
        with pytest.raises(ValueError, match="broken on purpose"):
            await rig.owner.run()
        assert rig.machine.state is State.STOPPED

    run(main)
