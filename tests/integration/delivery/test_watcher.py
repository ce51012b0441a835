"""``delivery/watcher.py``: one blocking read wakes the owners of idle lanes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from celery_stargate.delivery.watcher import Found, Watcher
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.registry import Registry
from celery_stargate.support.cancel import cancel_all
from tests.integration.rig import WAIT, Proxy, elapsed, wait_for
from tests.servers.fixtures import ServerAddress


@dataclass
class Rig:
    """A watcher that runs, and the events that it reported."""

    watcher: Watcher
    lanes: Outbox
    prefix: str
    events: list[None]

    async def put(self, lane: Lane, context: str) -> None:
        """Put a message, as another process does."""
        await asyncio.to_thread(
            self.lanes.put, lane, Record(context), [(context, b"{}")], timeout=60
        )

    def wait(self, lane: Lane, after: int = 0, timeout: float = WAIT) -> asyncio.Task[Found | None]:
        """Begin to wait."""
        key = lane.key(self.prefix, "log")
        return asyncio.ensure_future(self.watcher.wait(key, after, timeout))


@asynccontextmanager
async def watching(url: str, prefix: str, callers: str) -> AsyncIterator[Rig]:
    """A watcher over one Redis, callers over another URL of the same."""
    connections = Connections(url)
    redis, blocking = connections.asyncio(), connections.blocking()
    events: list[None] = []
    watcher = Watcher(redis, blocking, Registry(redis, prefix), "me", lambda: events.append(None))
    running = asyncio.ensure_future(watcher.run())
    lanes = Outbox(Connections(callers), prefix)
    try:
        yield Rig(watcher, lanes, prefix, events)
    finally:
        await cancel_all([running])
        await watcher.close()
        await redis.aclose()
        await blocking.aclose()
        lanes.close()


Play = Callable[[Callable[[Rig], Awaitable[Any]]], None]


@pytest.fixture
def play(redis_server: ServerAddress, prefix: str) -> Play:
    """Run a coroutine with a watcher, within the bound."""

    def run(work: Callable[[Rig], Awaitable[Any]]) -> None:
        async def main() -> None:
            async with (
                asyncio.timeout(WAIT),
                watching(redis_server.url, prefix, redis_server.url) as rig,
            ):
                await work(rig)

        asyncio.run(main())

    return run


def test_a_put_wakes_the_lane_that_waits_and_no_other(play: Play) -> None:
    """One read blocks for both."""

    async def work(rig: Rig) -> None:
        one, two = Lane("one"), Lane("two")
        first, second = rig.wait(one), rig.wait(two)
        await rig.put(one, "a")
        assert await first
        assert not second.done()
        await rig.put(two, "b")
        assert await second

    play(work)


def test_what_is_there_already_wakes_at_once(play: Play) -> None:
    """A message that was put between the last look and the wait."""

    async def work(rig: Rig) -> None:
        lane = Lane("one")
        await rig.put(lane, "a")
        assert await rig.wait(lane, 0)
        later = rig.wait(lane, 1)
        await asyncio.sleep(0)
        assert not later.done()
        await rig.put(lane, "b")
        assert await later

    play(work)


def test_lanes_may_join_while_it_blocks(play: Play) -> None:
    """The read that blocks does not include them: it is woken, so that the next one does."""

    async def work(rig: Rig) -> None:
        with elapsed() as seconds:
            for number in range(20):
                lane = Lane(f"lane {number}")
                waiting = rig.wait(lane)
                await rig.put(lane, "a")
                assert await waiting
        # A read blocks for two seconds: 20 that are waited for would take 40.
        assert seconds() < 15

    play(work)


def test_a_wait_ends_by_its_time(play: Play) -> None:
    """It leaves nothing behind."""

    async def work(rig: Rig) -> None:
        assert not await rig.wait(Lane("one"), timeout=0.1)
        assert rig.watcher._waiting == {}  # noqa: SLF001

    play(work)


def test_a_new_lane_is_an_event(play: Play) -> None:
    """So that a worker takes it at once."""

    async def work(rig: Rig) -> None:
        # The first one says that it watches from now on.
        assert await asyncio.to_thread(wait_for, lambda: len(rig.events))
        before = len(rig.events)
        await rig.put(Lane("persistent://public/default/new"), "a")
        await asyncio.to_thread(wait_for, lambda: len(rig.events) > before, 5.0)

    play(work)


def test_after_redis_was_away_it_goes_on(redis_server: ServerAddress, prefix: str) -> None:
    """Waiting lanes are woken to look by themselves, and wait again."""
    parts = urlsplit(redis_server.url)
    assert parts.port is not None
    with Proxy(parts.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}{parts.path}"

        async def main() -> None:
            async with (
                asyncio.timeout(WAIT),
                watching(url, prefix, redis_server.url) as rig,
            ):
                lane = Lane("one")
                waiting = rig.wait(lane)
                await asyncio.to_thread(proxy.close)
                assert await waiting
                await asyncio.to_thread(proxy.open)
                while True:
                    # It may still be told that Redis is away.
                    again = rig.wait(lane)
                    await rig.put(lane, "a")
                    if await again:
                        break

        asyncio.run(main())


def test_a_log_that_is_no_stream(
    play: Play, redis_server: ServerAddress, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Wakes its own lane, which finds out by itself; the others go on waiting."""

    async def work(rig: Rig) -> None:
        bad, good = Lane("bad"), Lane("good")
        with redis.Redis.from_url(redis_server.url) as client:
            client.set(bad.key(prefix, "log"), "x")
        waiting = rig.wait(good)
        assert await rig.wait(bad)
        assert not waiting.done()
        await rig.put(good, "a")
        assert await waiting

    play(work)
    assert "waiting for messages failed" in caplog.text
