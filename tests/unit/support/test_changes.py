"""``support/changes.py``: whoever waits for a condition is woken and looks again."""

from __future__ import annotations

import asyncio

from celery_stargate.support.changes import Changes


def test_a_condition_that_is_true_is_not_waited_for() -> None:
    """Nobody has to notify."""

    async def main() -> None:
        await asyncio.wait_for(Changes().until(lambda: True), 1)

    asyncio.run(main())


def test_each_waits_for_its_own_condition() -> None:
    """One notification wakes all; those whose condition is not met wait on."""

    async def main() -> list[int]:
        changes = Changes()
        done: list[str] = []
        reached: list[int] = []

        async def wait(enough: int) -> None:
            await changes.until(lambda: len(done) >= enough)
            reached.append(enough)

        tasks = [asyncio.ensure_future(wait(enough)) for enough in (2, 1)]
        for step in ("first", "second"):
            await asyncio.sleep(0)
            done.append(step)
            changes.notify()
            await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            tasks = [task for task in tasks if not task.done()]
        assert not tasks
        return reached

    assert asyncio.run(main()) == [1, 2]


def test_a_notification_before_the_wait_does_not_end_it() -> None:
    """The condition decides, and ``wait`` is for the next notification."""

    async def main() -> None:
        changes = Changes()
        changes.notify()
        waiting = asyncio.ensure_future(changes.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        changes.notify()
        await asyncio.wait_for(waiting, 1)

    asyncio.run(main())
