"""``effects/breaker.py``: what is away is tried seldom, and logged once and then seldom."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate.effects.breaker import Breaker
from tests.unit.helpers import Clock


@pytest.fixture
def clock() -> Clock:
    """Stand at some moment."""
    return Clock()


def test_one_try_at_a_time_after_waits_that_grow(clock: Clock) -> None:
    """1, 2, 4, … s, and 30 s at most."""
    breaker = Breaker("the broker", clock)
    waits = []
    for _ in range(8):
        assert breaker.allows()
        breaker.failed(OSError("away"))
        began = clock.now
        while not breaker.allows():
            assert breaker.is_open
            clock.now += 0.5
        assert not breaker.allows(), "another one tries already"
        waits.append(clock.now - began)
        clock.now += 30.0
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.allows()


def test_it_is_logged_once_and_then_seldom(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """And when it is back."""
    breaker = Breaker("the broker", clock)
    for _ in range(100):
        breaker.failed(OSError("no route"))
        clock.now += 7.0
    assert caplog.text.count("the broker is away") == 3
    assert "OSError('no route')" in caplog.text
    breaker.succeeded()
    breaker.succeeded()
    assert caplog.text.count("the broker is back after 700 s") == 1


def test_two_threads_that_find_it_back(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Say so once."""
    breaker = Breaker("the broker", clock)
    breaker.failed(OSError("away"))
    lock: Any = breaker._lock  # noqa: SLF001
    faster: list[bool] = []

    class Lock:
        def __enter__(self) -> None:
            if not faster:
                faster.append(True)
                breaker.succeeded()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    vars(breaker)["_lock"] = Lock()
    breaker.succeeded()
    assert caplog.text.count("the broker is back") == 1
    assert breaker.allows()
