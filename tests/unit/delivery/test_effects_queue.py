"""``delivery/effects_queue.py``: the effects of each settled context are done, once here."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from tests.unit.delivery.rig import PartsRig, settled, until


async def drain(rig: PartsRig) -> None:
    """Run the queue until it is empty."""
    running = asyncio.ensure_future(rig.queue.run())
    try:
        await until(lambda: running.done() or not len(rig.queue))
    finally:
        running.cancel()


def test_effects_are_done_and_forgotten() -> None:
    """Those that failed stay in Redis, for a later look."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.effects.failing = {"c2"}
        rig.queue.add([settled(1), settled(2)])
        assert len(rig.queue) == 2
        await drain(rig)
        return rig

    rig = asyncio.run(main())
    assert rig.effects.runs == [["c1", "c2"]]
    assert rig.store.finished == [("c1", 1)]


def test_a_context_that_is_here_already() -> None:
    """Is found due again while its effects run; they are done once."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.queue.add([settled(1)])
        rig.queue.add([settled(1), settled(2)])
        await drain(rig)
        return rig

    assert asyncio.run(main()).effects.runs == [["c1", "c2"]]


def test_rounds_are_bounded() -> None:
    """The thread is asked again for more."""

    async def main() -> PartsRig:
        rig = PartsRig()
        rig.queue.add(settled(number) for number in range(250))
        await drain(rig)
        return rig

    assert [len(each) for each in asyncio.run(main()).effects.runs] == [100, 100, 50]


def test_receipts_are_waited_for_no_more() -> None:
    """The session is told the labels of what has its outcome."""
    forgotten: list[tuple[str, int]] = []

    class Session:
        def forget(self, messages: Any) -> None:
            forgotten.extend(messages)

    async def main() -> None:
        rig = PartsRig()
        rig.in_flight.opened(cast("Any", Session()))
        rig.queue.add([settled(1)])

    asyncio.run(main())
    assert forgotten == [("c1", 1)]
