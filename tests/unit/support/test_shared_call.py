"""One call for all threads that ask at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from celery_stargate.support.bound import bounded, time_left
from celery_stargate.support.shared_call import SharedCall


class Gate:
    """A call that ends when the test says so, or when its time is over.

    Arguments:
        bound: the seconds of a call, if not those that are left.
    """

    def __init__(self, bound: float | None = None) -> None:
        self.calls = 0
        self.entered = threading.Event()
        self.opened = threading.Event()
        #: What the calls raise, the last one first.
        self.errors: list[Exception] = []
        self._bound = bound

    def __call__(self) -> int:
        """Wait."""
        self.calls += 1
        self.entered.set()
        if not self.opened.wait(time_left() if self._bound is None else self._bound):
            raise OSError("no answer")
        if self.errors:
            raise self.errors.pop()
        return self.calls


def wait_for_waiters(shared: SharedCall[int], count: int) -> None:
    """Until so many threads wait for the call of another."""
    end = time.monotonic() + 20
    while len(getattr(shared._running, "_condition")._waiters) < count:  # noqa: B009, SLF001
        assert time.monotonic() < end
        time.sleep(0.01)


def start(work: Callable[[], Any], seconds: float, found: list[Any]) -> threading.Thread:
    """Run a call in a thread with so many seconds, and note its result and what it took."""

    def run() -> None:
        began = time.monotonic()
        result: Any
        try:
            with bounded(seconds):
                result = work()
        except Exception as error:  # noqa: BLE001  # looked at by the test
            result = error
        found.append((result, time.monotonic() - began))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_threads_share_a_call() -> None:
    """Those that ask while it runs get its result; one that asks later makes a new one."""
    gate, found = Gate(), []  # type: ignore[var-annotated]
    shared = SharedCall(gate)
    threads = [start(shared.result, 5.0, found)]
    assert gate.entered.wait(5)
    threads += [start(shared.result, 5.0, found) for _ in range(7)]
    gate.opened.set()
    for thread in threads:
        thread.join(5)
    assert len(found) == 8
    assert gate.calls <= 2
    assert shared.result() == gate.calls


def test_nobody_waits_for_longer_than_its_own_time() -> None:
    """One behind the other, eight threads would take eight times as long."""
    gate, found = Gate(), []  # type: ignore[var-annotated]
    shared = SharedCall(gate)
    threads = [start(shared.result, 0.5, found) for _ in range(8)]
    for thread in threads:
        thread.join(5)
    assert len(found) == 8
    assert all(isinstance(result, OSError | TimeoutError) for result, _ in found)
    assert max(took for _, took in found) < 2


def test_a_thread_with_more_time_tries_again() -> None:
    """What ended for want of another thread's time says nothing about Redis."""
    gate, found = Gate(30.0), []  # type: ignore[var-annotated]
    gate.errors = [OSError("no answer")]
    shared = SharedCall(gate)
    first = start(shared.result, 0.3, found)
    assert gate.entered.wait(5)
    second = start(shared.result, 30.0, found)
    wait_for_waiters(shared, 1)
    gate.opened.set()
    for thread in (first, second):
        thread.join(30)
    results = [result for result, _ in found]
    assert [each for each in results if isinstance(each, int)] == [2]
    assert [type(each) for each in results if not isinstance(each, int)] == [OSError]


def test_an_error_that_came_at_once_is_shared() -> None:
    """A refused connection need not be tried by every thread."""
    gate, found = Gate(), []  # type: ignore[var-annotated]
    gate.errors = [KeyError("refused")]
    shared = SharedCall(gate)
    threads = [start(shared.result, 30.0, found)]
    assert gate.entered.wait(5)
    threads += [start(shared.result, 30.0, found) for _ in range(3)]
    wait_for_waiters(shared, 3)
    gate.opened.set()
    for thread in threads:
        thread.join(30)
    assert gate.calls == 1
    assert [type(result) for result, _ in found] == [KeyError] * 4


def test_the_next_call_is_a_new_one_after_an_error() -> None:
    """Nothing is kept."""

    def fail() -> int:
        raise KeyError

    shared = SharedCall(fail)
    for _ in range(2):
        with pytest.raises(KeyError):
            shared.result()


def test_a_handler_of_a_signal_that_interrupts_the_call() -> None:
    """It runs a call of its own: the one that it interrupted goes on only after it."""
    calls: list[int] = []

    def call() -> int:
        calls.append(1)
        return len(calls) if len(calls) > 1 else shared.result()

    shared: SharedCall[int] = SharedCall(call)
    assert shared.result() == 2
    assert len(calls) == 2
