"""``lanes/sentinels.py``: one thread of a process asks the sentinels."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from celery_stargate.lanes.passing import Epoch
from celery_stargate.lanes.sentinels import MasterWatch
from celery_stargate.lanes.target import parse_target
from tests.threads import no_new_threads


def test_calls_that_begin_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start one thread, whichever of them is faster."""
    started: list[str] = []
    over = threading.Event()

    def watch(self: MasterWatch) -> None:
        started.append("one")
        over.wait(20)

    monkeypatch.setattr(MasterWatch, "_watch", watch)
    made = MasterWatch(parse_target("sentinel://127.0.0.1:1?master_name=it"), Epoch())
    lock: Any = made._lock  # noqa: SLF001
    waits = threading.Event()

    class Lock:
        """Lets the other call be faster."""

        def __enter__(self) -> None:
            waits.set()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    monkeypatch.setattr(made, "_lock", Lock())
    with lock:
        slow = threading.Thread(target=made.touch)
        slow.start()
        assert waits.wait(20)
        made.touch()
    slow.join(20)
    over.set()
    assert started == ["one"]


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call goes on without it, and the next one starts it."""
    started = threading.Event()
    monkeypatch.setattr(MasterWatch, "_watch", lambda _: started.set())
    made = MasterWatch(parse_target("sentinel://127.0.0.1:1?master_name=it"), Epoch())
    with no_new_threads("stargate-sentinels"):
        made.touch()
    made.touch()
    assert started.wait(20)
