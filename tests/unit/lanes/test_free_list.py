"""The free connections of a pool, in which a signal handler interrupts a thread at any step."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import Empty, Full
from typing import Any

import pytest
import redis

from celery_stargate.lanes.free_list import FreeList
from celery_stargate.lanes.sync_client import BoundedPool
from tests.threads import signalled

#: The bound on every wait; nothing should come near it.
WAIT = 10.0
#: Older versions of redis-py need the name of a command, newer ones warn of it.
ASKED = () if tuple(map(int, redis.__version__.split(".")[:2])) >= (5, 3) else ("PING",)


class Connection:
    """Stand where a connection does."""

    host, port = "localhost", 6379

    def __init__(self, **_: object) -> None:
        self.pid = os.getpid()

    def connect(self) -> None:
        """Do nothing."""

    def disconnect(self) -> None:
        """Do nothing."""

    def can_read(self) -> bool:
        """Nothing is left to be read."""
        return False

    def should_reconnect(self) -> bool:
        """No."""
        return False


class Stop(BaseException):
    """What a handler raises."""


def in_thread(work: Callable[[], Any]) -> bool:
    """Do something in a thread, and return whether that ends."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(WAIT)
    return not thread.is_alive()


def at_each_step(work: Callable[[], Any], handler: Callable[[], None]) -> int:
    """Interrupt some work by a handler at one step after another, and return how many there are."""
    step, seen = 0, [0]
    while seen[0] == step:
        step += 1

        def once() -> None:
            nonlocal seen
            with contextlib.suppress(Stop), signalled(step, handler) as seen:  # noqa: B023
                work()

        assert in_thread(once), step
    return step - 1


def make_pool(**options: Any) -> BoundedPool:
    """Return a pool of connections that do nothing."""
    return BoundedPool(connection_class=Connection, **options)


def use(pool: BoundedPool) -> None:
    """Take a connection, and give it back."""
    pool.release(pool.get_connection(*ASKED))


@pytest.mark.no_cover
def test_a_signals_handler_uses_the_pool_at_any_step() -> None:
    """It waits for nothing that the thread holds which it interrupts."""
    pool = make_pool(max_connections=2)
    assert at_each_step(lambda: use(pool), lambda: use(pool)) > 10
    assert len(pool.pool.queue) == 2


@pytest.mark.no_cover
def test_a_signals_handler_that_raises_at_any_step_locks_nothing() -> None:
    """Another thread takes a connection all the same."""
    pool = make_pool(max_connections=1000)

    def stop() -> None:
        raise Stop

    def work() -> None:
        use(pool)

    assert at_each_step(work, stop) > 10
    assert in_thread(work)


def test_the_last_one_first() -> None:
    """So connections are made only where more of them are needed."""
    free = FreeList(3)
    for each in (None, "a", "b"):
        free.put_nowait(each)
    with pytest.raises(Full):
        free.put_nowait("c")
    assert [free.get(block=True, timeout=0.0) for _ in range(3)] == ["b", "a", None]
    with pytest.raises(Empty):
        free.get(block=True, timeout=0.01)
    with pytest.raises(Empty):
        free.get(block=False)
    assert not free._waiting  # noqa: SLF001


def test_threads_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets one as soon as it is free."""
    monkeypatch.setattr("celery_stargate.lanes.free_list._LOOK", WAIT)
    free = FreeList(2)
    found: list[Any] = []
    done = threading.Semaphore(0)

    def work() -> None:
        for _ in range(50):
            each = free.get(block=True, timeout=WAIT)
            found.append(each)
            free.put_nowait(each)
        done.release()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    free.put_nowait("a")
    free.put_nowait("b")
    for _ in threads:
        assert done.acquire(timeout=WAIT)
    assert len(found) == 400
    assert sorted(free.queue) == ["a", "b"]
