"""What the calls of one event loop share."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from celery_stargate import StoreUnavailable
from celery_stargate.calls import loop_calls
from celery_stargate.calls.loop_calls import LoopCalls, Loops
from celery_stargate.lanes.lane import Lane


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


class Noted:
    """Stand where a loop's outbox does, and note when it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        """Note it."""
        self.closed += 1


class Made:
    """The loops of a process, and the outboxes that were made for them."""

    def __init__(self) -> None:
        self.outboxes: list[Noted] = []
        runtime: Any = SimpleNamespace(outbox=SimpleNamespace(in_loop=self._make))
        self.loops = Loops(runtime)

    @property
    def closed(self) -> list[int]:
        """How often each was closed."""
        return [each.closed for each in self.outboxes]

    def _make(self) -> Noted:
        self.outboxes.append(Noted())
        return self.outboxes[-1]


def test_a_loop_that_was_closed_begins_anew() -> None:
    """Its calls share one outbox; each is closed once, the last one with the loop."""
    made = Made()

    async def main() -> None:
        await made.loops.aclose()
        first = await made.loops.here()
        assert await made.loops.here() is first
        await made.loops.aclose()
        await made.loops.aclose()
        assert made.closed == [1]
        assert await made.loops.here() is not first
        assert made.closed == [1, 0]

    asyncio.run(asyncio.wait_for(main(), 20))
    assert made.closed == [1, 1]


def test_a_forked_child_has_ids_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has what its parent fetched for the next ids; the same id would be the same message."""

    async def main() -> None:
        loops = Made().loops
        await loops.here()

        def new_context() -> str:
            here = loops.find()
            assert here is not None
            return next(here.contexts)

        ids = [new_context()]
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert loops.find() is None
        await loops.here()
        ids += [new_context() for _ in range(99)]
        monkeypatch.undo()
        ids += [new_context() for _ in range(99)]
        assert len(set(ids)) == 199

    asyncio.run(asyncio.wait_for(main(), 20))


def test_each_loop_closes_its_own() -> None:
    """As soon as it runs; one that was closed without that took its connections with it."""
    made = Made()
    gone, waits = asyncio.new_event_loop(), asyncio.new_event_loop()
    for loop in (gone, waits):
        loop.run_until_complete(made.loops.here())
    gone.close()
    made.loops.close()
    assert made.closed == [0, 0]
    waits.run_until_complete(asyncio.sleep(0))
    waits.run_until_complete(waits.shutdown_asyncgens())
    waits.close()
    assert made.closed == [0, 1]


@pytest.mark.parametrize("error", [StoreUnavailable("down"), TimeoutError(), KeyError("x")])
def test_inboxes_that_cannot_be_deleted(error: Exception) -> None:
    """The connections are closed nevertheless."""
    asked: list[list[str]] = []

    class Failing(Noted):
        async def forget(self, inboxes: list[str]) -> None:
            asked.append(inboxes)
            raise error

    outbox = Failing()
    runtime: Any = SimpleNamespace(
        outbox=SimpleNamespace(in_loop=lambda: outbox), settings=SimpleNamespace(keyspace="p")
    )

    async def main() -> None:
        calls = LoopCalls(runtime, lambda: None)
        await calls.open()
        inbox = calls.inbox_for(Lane("persistent://a/b/c"))
        ticket = inbox.expect()
        inbox.forget(ticket)
        with suppress(KeyError):
            await calls.aclose()
        assert asked == [[inbox.name]]
        assert calls.inbox_for(Lane("persistent://a/b/c")) is not inbox

    asyncio.run(asyncio.wait_for(main(), 20))
    assert outbox.closed == 1


def test_redis_does_not_hold_up_the_end_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it keeps for an hour is worth no longer wait."""
    monkeypatch.setattr(loop_calls, "_FORGET_BOUND", 0.01)

    class Silent(Noted):
        async def forget(self, inboxes: list[str]) -> None:
            await asyncio.Event().wait()

    outbox = Silent()
    runtime: Any = SimpleNamespace(
        outbox=SimpleNamespace(in_loop=lambda: outbox), settings=SimpleNamespace(keyspace="p")
    )

    async def main() -> None:
        calls = LoopCalls(runtime, lambda: None)
        await calls.open()
        calls.inbox_for(Lane("persistent://a/b/c"))
        await calls.aclose()

    asyncio.run(asyncio.wait_for(main(), 20))
    assert outbox.closed == 1


def test_a_look_for_an_owner_has_an_end() -> None:
    """The call fails; the look goes on in its thread."""
    goes_on = threading.Event()
    runtime: Any = SimpleNamespace(
        outbox=SimpleNamespace(in_loop=lambda: None),
        is_owned=lambda: False,
        require_owner=lambda: goes_on.wait(20),
    )

    async def main() -> None:
        calls = LoopCalls(runtime, lambda: None)
        try:
            with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.01 s"):
                await calls.require_owner(0.01)
        finally:
            goes_on.set()

    asyncio.run(asyncio.wait_for(main(), 20))
