"""The event that a signal handler may set, at any step of a thread that waits for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

import celery_stargate
from celery_stargate.support.stop_event import StopEvent
from tests.threads import interrupted

#: The bound on every wait; nothing should come near it.
WAIT = 10.0
#: More steps than `wait` and what it calls have.
STEPS = 300


class Event(Protocol):
    def set(self) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...


def ends(event: Event, step: int, call: Callable[[], object]) -> tuple[bool, int]:
    """Set an event at a step of a call; return whether the call ended, and its steps."""
    steps = [0]

    def work() -> None:
        nonlocal steps
        with interrupted(step, event.set) as steps:
            call()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(0.5 if isinstance(event, threading.Event) else WAIT)
    return not thread.is_alive(), steps[0]


@pytest.mark.no_cover
@pytest.mark.parametrize("method", ["wait", "set"])
def test_it_may_be_set_at_each_step(method: str) -> None:
    last = 0
    for step in range(1, STEPS):
        event = StopEvent()
        call = event.set if method == "set" else partial(event.wait, 0.001)
        ended, last = ends(event, step, call)
        assert ended, step
        if last < step:
            break
        assert event.wait(WAIT)
        assert event.is_set()
    assert 3 < last < STEPS - 1


@pytest.mark.no_cover
def test_an_event_of_threading_may_not() -> None:
    """The control: what was used before waits for itself at some step."""
    assert not all(
        ends(event, step, partial(event.wait, 0.001))[0]
        for step in range(1, STEPS)
        if (event := threading.Event())
    )


def test_a_signal_ends_a_wait_without_a_bound() -> None:
    stop = StopEvent()
    before = signal.signal(signal.SIGALRM, lambda *_: stop.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert stop.wait()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_all_that_wait_go_on() -> None:
    stop = StopEvent()
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(stop.wait(WAIT))) for _ in range(5)]
    for thread in threads:
        thread.start()
    stop.set()
    for thread in threads:
        thread.join(WAIT)
    assert found == [True] * 5


def test_a_wait_ends_after_its_time() -> None:
    """Or at once, if it is set."""
    stop = StopEvent()
    assert not stop.wait(0.0)
    assert not stop.wait(0.001)
    assert not stop.is_set()
    stop.set()
    assert stop.wait(0.0)


def test_no_module_with_a_signal_handler_has_another_event() -> None:
    """What a handler sets is a `StopEvent`."""
    folder = Path(celery_stargate.__file__).parent
    texts = {path: path.read_text() for path in folder.rglob("*.py")}
    handling = {path for path, text in texts.items() if "signal.signal(" in text}
    assert len(handling) > 2
    sets_one = {path for path in handling if ".set()" in texts[path]}
    assert sets_one
    assert not [path for path in sets_one if "threading.Event(" in texts[path]]
