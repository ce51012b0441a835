"""``delivery/retry.py``: a call is repeated until Redis answers, and only then."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError

from celery_stargate.delivery.retry import Retry
from celery_stargate.support.log import package_logger as logger


class Store:
    """Fail in the given ways first, and note the calls."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls: list[tuple[int, str]] = []

    async def settle(self, number: int, *, token: str) -> int:
        self.calls.append((number, token))
        if self._errors:
            raise self._errors.pop(0)
        return number + 1


def run(store: Store) -> tuple[int, list[float]]:
    """Call it; return its result and the bounds between which the waits were drawn."""
    drawn: list[float] = []

    def uniform(low: float, high: float) -> float:
        drawn.append(high)
        return 0.0

    retry = Retry("orders#0", uniform)
    return asyncio.run(retry.until_available(store.settle, 7, token="t")), drawn


def test_a_call_that_succeeds() -> None:
    """Is made once."""
    store = Store()
    assert run(store) == (8, [])
    assert store.calls == [(7, "t")]


def test_while_redis_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """The same call again, with the same token, after longer waits; logged once."""
    store = Store(RedisConnectionError("gone"), OutOfMemoryError("full"), OSError("no route"))
    with caplog.at_level("WARNING", logger.name):
        result, drawn = run(store)
    assert result == 8
    assert store.calls == [(7, "t")] * 4
    assert drawn == sorted(drawn)
    assert max(drawn) <= 1.0
    assert caplog.text.count("Redis does not answer") == 1
    assert "lane=orders#0" in caplog.text


def test_what_redis_refuses() -> None:
    """Would be refused again: the caller decides."""
    store = Store(ResponseError("NOPERM"))
    with pytest.raises(ResponseError):
        run(store)
    assert len(store.calls) == 1
