"""``lanes/inbox.py``: what Redis refuses is told, and deletes nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from celery_stargate import StoreUnavailable
from celery_stargate.lanes.inbox import Inboxes, read_inbox
from celery_stargate.model.outcomes import CallOutcomes
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
        asyncio.run(read_inbox(loops, "p", "box", ["1-0"], 1.0))
    assert redis.deleted == []
