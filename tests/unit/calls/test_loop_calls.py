"""What the calls of one event loop share."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from celery_stargate.calls.loop_calls import LoopCalls


@pytest.mark.parametrize(("owned", "looks"), [(False, 1), (True, 0)])
def test_calls_that_wait_look_for_an_owner_once(owned: bool, looks: int) -> None:
    """In one thread for all of them, and not at all while an owner is known."""
    looked: list[bool] = []

    def look() -> None:
        looked.append(threading.current_thread() is threading.main_thread())

    runtime: Any = SimpleNamespace(
        outbox=SimpleNamespace(in_loop=lambda: None),
        is_owned=lambda: owned,
        look_for_owner=look,
    )

    async def main() -> None:
        calls = LoopCalls(runtime, lambda: None)
        await asyncio.gather(*(calls.look_for_owner() for _ in range(20)))

    asyncio.run(asyncio.wait_for(main(), 20))
    assert looked == [False] * looks
