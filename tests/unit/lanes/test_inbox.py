"""``lanes/inbox.py``: what Redis refuses is told, and deletes nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from celery_stargate import StoreUnavailable
from celery_stargate.lanes.inbox import READ_COUNT, Inboxes, read_inbox
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.adaptive_limit import AdaptiveLimit
from tests.unit.helpers import receipt


class Refusing:
    """A Redis, as threads or an event loop use it, that refuses each pipeline."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def pipeline(self, transaction: bool) -> Any:
        """A pipeline of any commands."""
        return self

    def delete(self, key: str) -> None:
        """Note it."""
        self.deleted.append(key)

    def execute(self) -> Any:
        """Refuse."""
        raise NoPermissionError("this user has no permissions")

    def __getattr__(self, command: str) -> Any:
        return lambda *given, **options: None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


def test_a_redis_that_refuses() -> None:
    """Is told to the one who tells, and to the one who waits; the inbox is left as it is."""
    redis = Refusing()
    connections: Any = SimpleNamespace(sync=lambda: redis)
    inboxes = Inboxes(connections, "p")
    with pytest.raises(StoreUnavailable, match="no permissions"):
        inboxes.notify("box/1", CallOutcomes("c", False, (receipt("c"),)))
    with pytest.raises(StoreUnavailable, match="no permissions"):
        inboxes.subscribe("box", ["1-0"], 1.0)
    loops: Any = redis
    with pytest.raises(ResponseError, match="no permissions"):
        asyncio.run(read_inbox(loops, "p", "box", ["1-0"], 1.0, AdaptiveLimit(READ_COUNT)))
    assert redis.deleted == []


class Slow(Refusing):
    """A Redis behind a line that carries two entries in time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def xread(self, streams: object, count: int, block: int) -> None:
        """Note how many are asked for."""
        self.asked.append(count)

    def execute(self) -> Any:
        """Answer in time, or not."""
        if self.asked[-1] > 2:
            raise NoAnswer("Timeout reading from socket")
        return [None]


class SlowLoops(Slow):
    """The same, for an event loop."""

    async def execute(self) -> Any:
        """Answer in time, or not."""
        return super().execute()


def test_a_line_that_is_too_slow_for_many_entries() -> None:
    """A read that fails is not repeated as it was: it asks for fewer, until they come."""
    redis = Slow()
    connections: Any = SimpleNamespace(sync=lambda: redis)
    inboxes = Inboxes(connections, "p")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            inboxes.subscribe("box", [], 1.0)
    assert inboxes.subscribe("box", [], 1.0) == []
    assert redis.asked == [10, 5, 2]


def test_the_same_in_an_event_loop() -> None:
    """It has a count of its own."""
    redis: Any = SlowLoops()
    count = AdaptiveLimit(READ_COUNT)

    async def read() -> Any:
        return await read_inbox(redis, "p", "box", [], 1.0, count)

    for _ in range(2):
        with pytest.raises(NoAnswer):
            asyncio.run(read())
    assert asyncio.run(read()) == []
    assert redis.asked == [10, 5, 2]
