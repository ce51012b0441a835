"""Who waits for what comes of a put: it is told once."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import TimeoutError as NoAnswer

from celery_stargate.lanes.waiter import FirstNumber


def test_who_waits_for_a_number_is_told_once() -> None:
    """What comes later changes nothing; nor does what comes when nobody waits any more."""

    async def main() -> None:
        number, cancelled, failed = FirstNumber(), FirstNumber(), FirstNumber()
        number.recorded(1)
        number.recorded(2)
        number.failed(KeyError("late"))
        assert await number.wait() == 1
        for each in (cancelled, failed):
            waits = asyncio.ensure_future(each.wait())
            await asyncio.sleep(0)
            waits.cancel()
            if each is cancelled:
                each.recorded(1)
            else:
                each.failed(KeyError("late"))
            with pytest.raises(asyncio.CancelledError):
                await waits

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("recorded", [True, False])
def test_what_telling_raises_is_raised_by_who_waits(recorded: bool) -> None:
    """It is told before, with the error or without."""
    told: list[BaseException | None] = []
    late = NoAnswer("no answer in time")

    def fail(error: BaseException | None) -> None:
        told.append(error)
        raise LookupError("an observer's")

    async def main() -> None:
        number = FirstNumber()
        number.on_told = fail
        if recorded:
            number.recorded(1)
        else:
            number.failed(late)
        with pytest.raises(LookupError, match="an observer's"):
            await number.wait()

    asyncio.run(asyncio.wait_for(main(), 10))
    assert told == [None if recorded else late]


def test_an_event_loop_that_ends_cancels_who_waits() -> None:
    async def main() -> None:
        number = FirstNumber()
        number.failed(asyncio.CancelledError())
        with pytest.raises(asyncio.CancelledError):
            await number.wait()

    asyncio.run(asyncio.wait_for(main(), 10))
