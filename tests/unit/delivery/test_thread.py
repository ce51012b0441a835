"""``delivery/thread.py``: the thread goes on whatever its event loop ends with."""

from __future__ import annotations

import logging
import threading
import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest

from celery_stargate.delivery import thread as thread_module
from celery_stargate.delivery.thread import DeliveryThread
from celery_stargate.model.settings import Settings
from celery_stargate.support import log
from celery_stargate.support.log import package_logger as logger
from tests.threads import no_new_threads

#: As users have it: the tests have another, which raises.
_REPORT = log._report  # noqa: SLF001


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, SystemExit, KeyboardInterrupt])
def test_an_event_loop_that_fails_is_started_again(
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody else would start it: the process would own no lanes any more."""
    runs = 0
    again = threading.Event()

    async def main(self: DeliveryThread, stop: threading.Event) -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise error("broken on purpose")
        again.set()
        stop.set()

    class NoWait:
        def __init__(self, *_: object) -> None:
            pass

        def next(self) -> float:
            return 0.0

    monkeypatch.setattr(DeliveryThread, "_main", main)
    monkeypatch.setattr(thread_module, "Backoff", NoWait)
    delivery = DeliveryThread(Settings(), cast("Any", None), cast("Any", None))
    with caplog.at_level("ERROR", logger.name):
        delivery.start()
        assert again.wait(10)
        delivery.stop(0.0)
    assert not delivery.running
    assert runs == 3
    assert len([each for each in caplog.records if "starts again" in each.message]) == 2


def test_a_filter_that_raises_while_that_is_logged(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mistake of the project's: the thread goes on nevertheless."""
    runs = 0
    again = threading.Event()

    async def main(self: DeliveryThread, stop: threading.Event) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise RuntimeError("broken on purpose")
        again.set()
        stop.set()

    def broken(record: logging.LogRecord) -> bool:
        raise AttributeError("no user")

    monkeypatch.setattr(log, "_report", _REPORT)
    monkeypatch.setattr(DeliveryThread, "_main", main)
    monkeypatch.setattr(thread_module, "Backoff", lambda *_: SimpleNamespace(next=lambda: 0.0))
    monkeypatch.setattr(caplog.handler, "filter", broken)
    delivery = made()
    delivery.start()
    assert again.wait(10)
    delivery.stop(0.0)
    assert "AttributeError: no user" in capsys.readouterr().err


def test_one_that_outlived_its_stop_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started again meanwhile, one thread owns lanes, and not two."""
    began, hold = threading.Semaphore(0), threading.Event()
    runs: list[threading.Thread] = []

    async def main(self: DeliveryThread, stop: threading.Event) -> None:
        runs.append(threading.current_thread())
        began.release()
        (hold if len(runs) == 1 else stop).wait(10)

    monkeypatch.setattr(DeliveryThread, "_main", main)
    monkeypatch.setattr(thread_module, "_CLOSING", 0.0)
    delivery = DeliveryThread(Settings(), cast("Any", None), cast("Any", None))
    delivery.start()
    assert began.acquire(timeout=10)
    delivery.stop(0.0)
    delivery.start()
    assert began.acquire(timeout=10)
    hold.set()
    runs[0].join(10)
    assert not runs[0].is_alive()
    assert delivery.running
    delivery.stop(10.0)
    assert len(runs) == 2


@pytest.mark.parametrize(("lasted", "waits"), [(0.0, [1, 2, 3]), (60.0, [1, 1, 1])])
def test_the_wait_before_the_next_start(
    lasted: float, waits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows, and begins anew after an event loop that has worked for a minute."""
    now = [0.0]
    found: list[int] = []
    over = threading.Event()

    async def main(self: DeliveryThread, stop: threading.Event) -> None:
        now[0] += lasted + 0.001
        if len(found) == 3:
            over.set()
            stop.set()
            return
        raise RuntimeError("broken on purpose")

    class Waits:
        def __init__(self, *_: object) -> None:
            self.number = 0

        def reset(self) -> None:
            self.number = 0

        def next(self) -> float:
            self.number += 1
            found.append(self.number)
            return 0.0

    monkeypatch.setattr(DeliveryThread, "_main", main)
    monkeypatch.setattr(thread_module, "Backoff", Waits)
    monkeypatch.setattr(thread_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    delivery = made()
    delivery.start()
    assert over.wait(10)
    delivery.stop(0.0)
    assert found == waits


def made() -> DeliveryThread:
    """A thread that was not started."""
    return DeliveryThread(Settings(), cast("Any", None), cast("Any", None))


@pytest.fixture
def _only_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the threads of other tests nothing is known."""
    monkeypatch.setattr(thread_module, "_alive", weakref.WeakSet())


@pytest.mark.usefixtures("_only_own")
def test_a_forked_child_owns_nothing() -> None:
    """What it has inherited is closed without a word to the parent's servers."""
    closed: list[bool] = []
    owning, idle = made(), made()
    owning.supervisor = cast("Any", SimpleNamespace(close_inherited=lambda: closed.append(True)))
    owning._thread = threading.current_thread()  # noqa: SLF001
    assert owning.running
    thread_module._after_fork_in_child()  # noqa: SLF001
    assert closed == [True]
    assert [each.running for each in (owning, idle)] == [False, False]
    assert owning.supervisor is None
    owning.stop(0.0)


@pytest.mark.usefixtures("_only_own")
def test_a_process_that_ends_gives_its_lanes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each thread that runs; one that was never started is left as it is."""
    began = threading.Event()

    async def main(self: DeliveryThread, stop: threading.Event) -> None:
        began.set()
        stop.wait(10)

    monkeypatch.setattr(DeliveryThread, "_main", main)
    running, idle = made(), made()
    running.start()
    assert began.wait(10)
    thread_module._stop_all()  # noqa: SLF001
    assert not running.running
    assert idle.supervisor is None


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to stop, and a later start starts it."""
    ran = threading.Event()

    async def main(self: DeliveryThread, stop: threading.Event) -> None:
        ran.set()
        stop.set()

    monkeypatch.setattr(DeliveryThread, "_main", main)
    delivery = DeliveryThread(Settings(), cast("Any", None), cast("Any", None))
    with no_new_threads("stargate"), pytest.raises(RuntimeError, match="start new thread"):
        delivery.start()
    assert not delivery.running
    delivery.stop(0.0)
    delivery.start()
    assert ran.wait(20)
    delivery.stop(0.0)
