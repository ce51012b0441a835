"""``delivery/thread.py``: the thread goes on whatever its event loop ends with."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from celery_stargate.delivery import thread as thread_module
from celery_stargate.delivery.thread import DeliveryThread
from celery_stargate.model.settings import Settings
from celery_stargate.support.log import package_logger as logger


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
