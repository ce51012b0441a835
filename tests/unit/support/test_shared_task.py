"""One thread for all tasks that need the same."""

from __future__ import annotations

import asyncio
import threading

import pytest

from celery_stargate.support.bound import bounded, time_left
from celery_stargate.support.shared_task import SharedTasks


def test_who_asks_meanwhile_shares_the_call() -> None:
    """Also its error; with another key, or later, it is called again."""
    calls: list[str] = []
    go = threading.Event()

    def call() -> None:
        calls.append(threading.current_thread().name)
        go.wait(10)
        if len(calls) > 1:
            raise KeyError

    async def main() -> None:
        shared = SharedTasks("shared")
        asking = [asyncio.ensure_future(shared.run("a", call)) for _ in range(10)]
        await asyncio.sleep(0)
        asking.pop().cancel()
        go.set()
        await asyncio.gather(*asking)
        assert calls == ["shared"]
        failed = await asyncio.gather(
            *(shared.run("a", call) for _ in range(3)), return_exceptions=True
        )
        assert [type(each) for each in failed] == [KeyError] * 3
        with pytest.raises(KeyError):
            await shared.run("b", call)

    asyncio.run(main())
    assert len(calls) == 3


def test_it_is_not_within_the_bound_of_the_first() -> None:
    """Others may have more time."""
    left: list[float] = []

    async def main() -> None:
        with bounded(0.1):
            await SharedTasks("shared").run("a", lambda: left.append(time_left()))

    asyncio.run(main())
    assert left[0] > 1


def test_an_event_loop_that_ends_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    """The wait is cancelled with it, without a word, and the next loop asks anew."""
    began, go = threading.Event(), threading.Event()

    def call() -> None:
        began.set()
        go.wait(10)

    shared = SharedTasks("shared")

    async def leave() -> None:
        asking = asyncio.ensure_future(shared.run("a", call))
        await asyncio.to_thread(began.wait, 10)
        asking.cancel()

    asyncio.run(leave())
    go.set()
    done: list[bool] = []
    asyncio.run(shared.run("a", lambda: done.append(True)))
    assert done == [True]
    assert caplog.records == []
