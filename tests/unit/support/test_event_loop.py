"""The event loop that needs no ``concurrent.futures`` pool."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from celery_stargate.support.event_loop import LastingLoop


def run(main: Any) -> Any:
    """Run a coroutine in such a loop."""
    with asyncio.Runner(loop_factory=LastingLoop) as runner:
        return runner.run(main)


async def _thread(executor: Any = None) -> str:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(executor, lambda: threading.current_thread().name)


async def _fail() -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, int, "x")


def test_without_an_executor_each_call_has_a_thread_of_its_own() -> None:
    """It ends with the call; what the call raises is raised."""
    assert run(_thread()) == "stargate-names"
    with pytest.raises(ValueError, match="invalid literal"):
        run(_fail())


def test_an_executor_that_is_given_is_used() -> None:
    """As asyncio does."""
    with ThreadPoolExecutor(1, thread_name_prefix="own") as executor:
        assert run(_thread(executor)).startswith("own")


def test_where_no_thread_can_start_the_loop_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is while the process ends, from Python 3.12 on."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert run(_thread()) == "MainThread"
    with pytest.raises(ValueError, match="invalid literal"):
        run(_fail())
