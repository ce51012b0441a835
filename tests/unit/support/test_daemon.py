"""``support/daemon.py``: a thread that never keeps the process from ending."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from celery_stargate.support.daemon import DaemonThread
from tests.threads import no_new_threads


def test_work_is_done_in_order_in_one_thread() -> None:
    """And its result or its error comes back."""
    daemon = DaemonThread("test")
    done: list[int] = []

    def work(number: int) -> threading.Thread:
        done.append(number)
        return threading.current_thread()

    for number in range(3):
        future = daemon.submit(work, number)
    thread = future.result(20)
    assert done == [0, 1, 2]
    assert thread.daemon
    assert thread.name == "test"
    with pytest.raises(ZeroDivisionError):
        daemon.submit(lambda: 1 / 0).result(20)
    daemon.shutdown(wait=True)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="shut down"):
        daemon.submit(print)


def test_what_was_cancelled_is_not_begun() -> None:
    """As for any executor."""
    daemon = DaemonThread("test")
    held = threading.Event()
    done: list[int] = []
    daemon.submit(held.wait, 20)
    cancelled = daemon.submit(done.append, 1)
    assert cancelled.cancel()
    held.set()
    daemon.submit(done.append, 2).result(20)
    assert done == [2]


def test_the_process_ends_while_it_hangs() -> None:
    """A ``ThreadPoolExecutor`` would wait for its thread."""
    program = (
        "import threading\n"
        "from celery_stargate.support.daemon import DaemonThread\n"
        "DaemonThread('test').submit(threading.Event().wait)\n"
        "print('end')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout == "end\n"


def test_what_is_around_each_piece_of_work() -> None:
    """It begins before the work and ends after it, in its thread."""
    events: list[str] = []

    @contextmanager
    def around() -> Iterator[None]:
        events.append("begin")
        yield
        events.append("end")

    daemon = DaemonThread("test", around)
    for _ in range(2):
        daemon.submit(events.append, "work").result(10)
    assert events == ["begin", "work", "end"] * 2
    daemon.shutdown(wait=True)


def test_a_thread_that_cannot_be_started() -> None:
    """The next piece of work starts it."""
    daemon = DaemonThread("test")
    with no_new_threads("test"), pytest.raises(RuntimeError, match="can't start new thread"):
        daemon.submit(print)
    assert daemon.submit(lambda: 1).result(20) == 1
    daemon.shutdown(wait=True)
