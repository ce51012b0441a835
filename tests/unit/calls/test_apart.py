"""What blocks, in a thread of the event loop: each call ends in its own time."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from celery_stargate.calls.apart import in_thread
from celery_stargate.errors import StoreUnavailable
from celery_stargate.support.bound import time_left


def test_it_returns_and_raises_what_the_function_does() -> None:
    """Within the bound that it is given."""

    def fail() -> None:
        raise KeyError("x")

    assert asyncio.run(in_thread(60.0, lambda: round(time_left()))) == 60
    with pytest.raises(KeyError):
        asyncio.run(in_thread(60.0, fail))


def test_calls_do_not_wait_for_those_before_them() -> None:
    """There are more calls than threads, and each takes its whole time."""
    calls: list[float] = []

    def hang() -> None:
        calls.append(0.0)
        time.sleep(time_left())
        raise StoreUnavailable("no answer")

    async def all_of_them() -> float:
        began = time.monotonic()
        ended = await asyncio.gather(
            *(in_thread(0.5, hang) for _ in range(200)), return_exceptions=True
        )
        assert {type(each) for each in ended} == {StoreUnavailable}
        return time.monotonic() - began

    assert asyncio.run(all_of_them()) < 3.0
    assert len(calls) < 200, "a call whose time is over does nothing"


def test_a_result_that_nobody_waits_for_is_undone() -> None:
    """The caller was cancelled, or its time was over."""
    release, undone = threading.Event(), threading.Event()

    def work() -> str:
        release.wait(30)
        return "ticket"

    async def cancelled() -> None:
        task = asyncio.ensure_future(
            in_thread(60.0, work, lambda result: undone.set() if result == "ticket" else None)
        )
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        await asyncio.to_thread(undone.wait, 30)

    asyncio.run(cancelled())
    assert undone.is_set()
