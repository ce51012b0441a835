"""``delivery/watchers.py``: the lanes of a Redis Cluster are watched bucket by bucket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as LostConnection

from celery_stargate.delivery import watchers
from celery_stargate.delivery.watcher import Watcher
from celery_stargate.delivery.watchers import BucketWatchers, make_watcher
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry import Registry
from celery_stargate.model.buckets import in_buckets
from tests.unit.helpers import TOPIC


class Bucket:
    """Stand where the watcher of one bucket does."""

    def __init__(self, *given: Any) -> None:
        self.number = given[5]
        self.waits: list[str] = []
        self.running = asyncio.Event()
        self.fails = asyncio.Event()
        self.ended = self.closed = False
        self.error: Exception | None = None

    async def wait(self, log_key: str, after: int, timeout: float) -> bool:
        """Note it."""
        self.waits.append(log_key)
        return True

    async def run(self) -> None:
        """Run until it fails."""
        try:
            self.running.set()
            await self.fails.wait()
            raise LostConnection("the shard is down")
        finally:
            self.ended = True

    async def close(self) -> None:
        """Note it, or fail."""
        if self.error is not None:
            raise self.error
        self.closed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[BucketWatchers, list[Any]]:
    """The watcher of three buckets, and those of each."""
    monkeypatch.setattr(watchers, "Watcher", Bucket)
    nothing: Any = None
    registry = Registry(nothing, in_buckets("p", 3))
    found = make_watcher(nothing, nothing, registry, "me", lambda: None)
    assert isinstance(found, BucketWatchers)
    return found, list(vars(found)["_watchers"].values())


def test_a_single_server_has_one_watcher() -> None:
    """There are no slots to respect."""
    nothing: Any = None
    found = make_watcher(nothing, nothing, Registry(nothing, "p"), "me", lambda: None)
    assert isinstance(found, Watcher)


def test_a_lane_is_watched_in_its_bucket(made: tuple[BucketWatchers, list[Any]]) -> None:
    """One read must not span slots."""
    watcher, buckets = made
    prefix = in_buckets("p", 3)
    lanes = [Lane(TOPIC, index) for index in range(20)]

    async def main() -> None:
        for lane in lanes:
            assert await watcher.wait(lane.key(prefix, "log"), 0, 1.0)

    asyncio.run(main())
    for bucket in buckets:
        own = [lane.key(prefix, "log") for lane in lanes if lane.bucket(prefix) == bucket.number]
        assert bucket.waits == own
    assert sum(len(each.waits) for each in buckets) == 20


def test_one_that_fails_ends_all(made: tuple[BucketWatchers, list[Any]]) -> None:
    """The supervisor starts all again; none goes on unseen."""
    watcher, buckets = made

    async def main() -> None:
        running = asyncio.ensure_future(watcher.run())
        for each in buckets:
            await each.running.wait()
        buckets[1].fails.set()
        with pytest.raises(LostConnection, match="shard is down"):
            await running

    asyncio.run(asyncio.wait_for(main(), 10))
    assert all(each.ended for each in buckets)


@pytest.mark.parametrize("error", [LostConnection("down"), OSError("no route")])
def test_a_shard_that_is_down_while_it_closes(
    made: tuple[BucketWatchers, list[Any]], error: Exception
) -> None:
    """The streams of the others are deleted, and the error is told."""
    watcher, buckets = made
    buckets[0].error = error
    with pytest.raises(type(error)):
        asyncio.run(watcher.close())
    assert [each.closed for each in buckets] == [False, True, True]
    buckets[0].error = None
    asyncio.run(watcher.close())
    assert buckets[0].closed
