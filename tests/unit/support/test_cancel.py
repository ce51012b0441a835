"""Ending asyncio tasks: those that swallow a cancellation, and those that failed."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from celery_stargate.support.cancel import cancel_all


def test_tasks_are_ended() -> None:
    """All of them; none is no work."""

    async def main() -> list[bool]:
        tasks = [asyncio.ensure_future(asyncio.sleep(3600)) for _ in range(3)]
        await cancel_all(tasks)
        await cancel_all([])
        return [task.cancelled() for task in tasks]

    assert asyncio.run(main()) == [True, True, True]


def test_one_that_swallows_a_cancellation() -> None:
    """Is cancelled again, until it has ended."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.sleep(3600)

    async def main() -> bool:
        task = asyncio.ensure_future(stubborn())
        await asyncio.sleep(0)
        await asyncio.wait_for(cancel_all([task]), 5)
        return task.cancelled()

    assert asyncio.run(main())
    assert swallowed == 2


def test_one_that_takes_its_time() -> None:
    """Is waited for: what it closes is closed when this returns."""
    closed = False

    async def tidy() -> None:
        nonlocal closed
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            closed = True

    async def main() -> None:
        task = asyncio.ensure_future(tidy())
        await asyncio.sleep(0)
        await cancel_all([task])

    asyncio.run(main())
    assert closed


def test_failures_are_dropped_and_retrieved() -> None:
    """Of those that ended before, and of those that fail as they end; asyncio has no complaint."""
    complaints: list[dict[str, Any]] = []

    async def fails_now() -> None:
        raise RuntimeError("now")

    async def fails_when_cancelled() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise RuntimeError("then") from None

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, each: complaints.append(each))
        tasks = [asyncio.ensure_future(fails_now()), asyncio.ensure_future(fails_when_cancelled())]
        await asyncio.sleep(0)
        await cancel_all(tasks)
        del tasks
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert complaints == []
