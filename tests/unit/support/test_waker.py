"""What wakes a thread: a signal handler may do so at any step."""

from __future__ import annotations

import threading

import pytest

from celery_stargate.support.waker import Waker
from tests.threads import interrupted


def test_it_wakes_once() -> None:
    """However often it was set before; and not after it was cleared."""
    waker = Waker()
    assert not waker.wait(0.0)
    waker.set()
    waker.set()
    assert waker.is_set()
    assert waker.wait(10)
    assert not waker.is_set()
    waker.set()
    waker.clear()
    assert not waker.wait(0.001)


@pytest.mark.no_cover
@pytest.mark.parametrize("method", ["wait", "set", "clear"])
def test_it_may_be_set_at_each_step(method: str) -> None:
    """An event of threading waits for itself at some step."""
    ended: list[int] = []

    def work() -> None:
        step, last = 0, 1
        while last > step:
            step += 1
            waker = Waker()
            with interrupted(step, waker.set) as steps:
                waker.wait(0.001) if method == "wait" else getattr(waker, method)()
            last = steps[0]
            ended.append(last)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert len(ended) > 3
