"""One call for all threads that ask at the same time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from celery_stargate.support.bound import bounded, time_left
from celery_stargate.support.shared_call import SharedCall, _Running
from tests.threads import signalled


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
        self.errors: list[BaseException] = []
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


@pytest.fixture
def waiters(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Is released by each thread that waits for the call of another."""
    found, wait = threading.Semaphore(0), _Running.wait

    def noted(running: _Running[int], seconds: float) -> None:
        found.release()
        wait(running, seconds)

    monkeypatch.setattr(_Running, "wait", noted)
    return found


def wait_for_waiters(waiters: threading.Semaphore, count: int) -> None:
    """Until so many threads wait for the call of another."""
    for _ in range(count):
        assert waiters.acquire(timeout=20)


def start(work: Callable[[], Any], seconds: float, found: list[Any]) -> threading.Thread:
    """Run a call in a thread with so many seconds, and note its result and what it took."""

    def run() -> None:
        began = time.monotonic()
        result: Any
        try:
            with bounded(seconds):
                result = work()
        except BaseException as error:  # noqa: BLE001  # looked at by the test
            result = error
        found.append((result, time.monotonic() - began))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def ask_together(
    shared: SharedCall[int], gate: Gate, waiters: threading.Semaphore, found: list[Any]
) -> None:
    """Let one thread make the call while three wait for it; note what each of them got."""
    threads = [start(shared.result, 30.0, found)]
    assert gate.entered.wait(5)
    threads += [start(shared.result, 30.0, found) for _ in range(3)]
    wait_for_waiters(waiters, 3)
    gate.opened.set()
    for thread in threads:
        thread.join(30)


def test_threads_share_a_call() -> None:
    """Those that ask while it runs get its result; one that asks later makes a new one."""
    gate, found = Gate(), []  # type: ignore[var-annotated]
    shared = SharedCall(gate, (OSError,))
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
    shared = SharedCall(gate, (OSError,))
    threads = [start(shared.result, 0.5, found) for _ in range(8)]
    for thread in threads:
        thread.join(5)
    assert len(found) == 8
    assert all(isinstance(result, OSError | TimeoutError) for result, _ in found)
    assert max(took for _, took in found) < 2


def test_a_thread_with_more_time_tries_again(waiters: threading.Semaphore) -> None:
    """What ended for want of another thread's time says nothing about Redis."""
    gate, found = Gate(30.0), []  # type: ignore[var-annotated]
    gate.errors = [OSError("no answer")]
    shared = SharedCall(gate, (OSError,))
    first = start(shared.result, 0.3, found)
    assert gate.entered.wait(5)
    second = start(shared.result, 30.0, found)
    wait_for_waiters(waiters, 1)
    gate.opened.set()
    for thread in (first, second):
        thread.join(30)
    results = [result for result, _ in found]
    assert [each for each in results if isinstance(each, int)] == [2]
    assert [type(each) for each in results if not isinstance(each, int)] == [OSError]


def test_an_error_that_came_at_once_is_shared(waiters: threading.Semaphore) -> None:
    """A refused connection need not be tried by every thread."""
    gate, found = Gate(), []  # type: ignore[var-annotated]
    gate.errors = [ConnectionError("refused")]
    shared = SharedCall(gate, (OSError,))
    ask_together(shared, gate, waiters, found)
    assert gate.calls == 1
    assert [type(result) for result, _ in found] == [ConnectionError] * 4


def test_the_next_call_is_a_new_one_after_an_error() -> None:
    """Nothing is kept."""

    def fail() -> int:
        raise KeyError

    shared = SharedCall(fail, (KeyError,))
    for _ in range(2):
        with pytest.raises(KeyError):
            shared.result()


def test_a_handler_of_a_signal_that_interrupts_the_call() -> None:
    """It runs a call of its own: the one that it interrupted goes on only after it."""
    calls: list[int] = []

    def call() -> int:
        calls.append(1)
        return len(calls) if len(calls) > 1 else shared.result()

    shared: SharedCall[int] = SharedCall(call, ())
    assert shared.result() == 2
    assert len(calls) == 2


@pytest.mark.parametrize("kind", [SoftTimeLimitExceeded, SystemExit, KeyError])
def test_what_interrupts_a_thread_is_raised_in_no_other(
    kind: type[BaseException], waiters: threading.Semaphore
) -> None:
    """As by a signal handler: one of those that wait makes the call in its place."""
    gate, found = Gate(), []  # type: ignore[var-annotated]
    gate.errors = [kind()]
    shared = SharedCall(gate, (OSError,))
    ask_together(shared, gate, waiters, found)
    results = [result for result, _ in found]
    assert [type(each) for each in results if not isinstance(each, int)] == [kind]
    assert len(results) == 4


@pytest.mark.no_cover
def test_a_thread_that_is_interrupted_at_any_step_holds_up_no_other() -> None:
    """What it began is over: another thread does not wait for it."""

    class Stop(BaseException): ...

    def stop() -> None:
        raise Stop

    def work() -> None:
        last = step = 0
        while last == step:
            step += 1
            shared = SharedCall(lambda: 1, ())
            with contextlib.suppress(Stop), signalled(step, stop) as steps:
                shared.result()
            last = steps[0]
            kept.append(shared)

    kept: list[SharedCall[int]] = []
    start(work, 30.0, []).join(30)
    assert len(kept) > 20
    for shared in kept:
        with bounded(0.0):
            assert shared.result() == 1


def test_who_waits_for_another_waits_no_longer_than_its_own_time() -> None:
    """Then it is told so; the call goes on for the thread that makes it."""
    gate = Gate()
    found: list[Any] = []
    shared = SharedCall(gate, (OSError,))
    first = start(shared.result, 20.0, found)
    assert gate.entered.wait(20)
    with bounded(0.05), pytest.raises(TimeoutError):
        shared.result()
    assert found == []
    gate.opened.set()
    first.join(20)
    assert found[0][0] == 1
