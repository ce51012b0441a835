"""Work that may wait: done in its order, for a part of the time, and never more than may wait."""

from __future__ import annotations

import os
import threading
import time

import pytest

from celery_stargate.support import paced as paced_module
from celery_stargate.support.paced import Paced


def test_does_jobs_in_their_order() -> None:
    done: list[int] = []
    ended = threading.Event()

    def work(job: int) -> None:
        done.append(job)
        if job == 29:
            ended.set()

    paced = Paced(work, "unit")
    for job in range(30):
        paced.add(job)
    assert ended.wait(10.0)
    assert done == list(range(30))


def test_rests_for_most_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job takes all of the processor; the thread takes a twentieth of it while new jobs come."""
    monkeypatch.setattr(paced_module, "_PATIENCE", 0.0)

    def work(job: int) -> None:
        began = time.thread_time()
        while time.thread_time() - began < 0.002:
            pass
        done.append(job)

    done: list[int] = []
    paced = Paced(work, "unit")
    for job in range(1000):
        paced.add(job)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        paced.add(0)
        time.sleep(0.01)
    # Ten jobs are 20 ms, and then it rests for 400 ms.
    assert 0 < len(done) <= 30


def test_puts_all_off_while_new_jobs_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not where half of those wait that may; and not for longer than its patience."""
    monkeypatch.setattr(paced_module, "_QUIET", 0.5)
    done: list[int] = []
    paced = Paced(done.append, "unit", limit=1000)
    paced.add(*range(10))
    time.sleep(0.1)
    assert not done
    paced.add(*range(600))
    _until_done(paced, done, 100)
    monkeypatch.setattr(paced_module, "_PATIENCE", 0.1)
    done = []
    paced = Paced(done.append, "unit", limit=100_000)
    paced.add(0)
    _until_done(paced, done, 1)


def _until_done(paced: Paced[int], done: list[int], count: int) -> None:
    """Let new jobs come until so many are done."""
    until = time.monotonic() + 10.0
    while len(done) < count:
        assert time.monotonic() < until
        paced.add(1)
        time.sleep(0.01)


def test_says_what_it_has_no_room_for() -> None:
    done: list[int] = []
    paced = Paced(done.append, "unit", limit=5)
    paced.add(1, 2, 3)
    with paced._doing.get():  # noqa: SLF001  # its thread waits
        given = len(paced._waiting.get())  # noqa: SLF001
        paced.add(*range(10, 20))
        assert len(paced._waiting.get()) == 5  # noqa: SLF001
    paced.flush()
    assert len(done) == 3 - given + 5


def test_flush_does_what_waits() -> None:
    done: list[int] = []
    paced = Paced(done.append, "unit", share=1e-6)
    for job in range(200):
        paced.add(job)
    paced.flush()
    assert done == list(range(200))


def test_too_many_are_dropped_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    held, done = threading.Event(), []

    def work(job: int) -> None:
        held.wait(10.0)
        done.append(job)

    paced = Paced(work, "unit", limit=5)
    for job in range(100):
        paced.add(job)
    held.set()
    paced.flush()
    assert len(done) < 20
    assert caplog.messages == ["unit: more than 5 wait, and new ones are dropped"]


def test_what_is_offered_without_room_is_left_to_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is dropped, so nothing is logged."""
    held = threading.Event()
    done: list[int] = []

    def work(job: int) -> None:
        assert held.wait(10.0)
        done.append(job)

    paced = Paced(work, "unit", limit=5)
    taken = [job for job in range(100) if paced.offer(job)]
    held.set()
    paced.flush()
    assert done == taken
    assert 5 <= len(taken) < 20
    assert caplog.messages == []


def test_one_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def work(job: int) -> None:
        raise RuntimeError("of a test")

    paced = Paced(work, "unit")
    paced.add(1)
    paced.flush()
    assert caplog.messages == ["unit failed; it goes on with the next"]


def test_a_child_begins_with_none() -> None:
    done: list[int] = []
    paced = Paced(done.append, "unit", share=1e-6)
    for job in range(500):
        paced.add(job)
    child = os.fork()
    if not child:
        done.clear()
        paced.add(7)
        paced.flush()
        os._exit(0 if done == [7] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_signals_handler_that_flushes_while_its_thread_does() -> None:
    """It does the rest, and waits for nobody."""
    done: list[int] = []

    def work(job: int) -> None:
        if job == 0:
            # As a handler would that interrupts this job.
            paced.flush()
        done.append(job)

    paced = Paced(work, "unit")
    ended = threading.Event()

    def flush() -> None:
        paced.flush()
        ended.set()

    for job in range(3):
        paced._waiting.get().append(job)  # noqa: SLF001
    threading.Thread(target=flush, daemon=True).start()
    assert ended.wait(10.0)
    assert done == [1, 2, 0]


def test_what_goes_on_failing_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each of the others is done."""
    done: list[int] = []

    def work(job: int) -> None:
        if job % 2:
            raise ValueError(job)
        done.append(job)

    paced = Paced(work, "unit")
    for job in range(10):
        paced.add(job)
    paced.flush()
    assert done == [0, 2, 4, 6, 8]
    assert len(caplog.records) == 1
