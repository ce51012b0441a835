"""Values of which each process has its own."""

from __future__ import annotations

import os
import threading

import pytest

from celery_stargate.support.per_process import PerProcess


def test_made_when_it_is_first_asked_for() -> None:
    """Once."""
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    held = PerProcess(make)
    assert made == []
    assert held.get() is held.get() is made[0]
    assert len(made) == 1


def test_a_forked_child_makes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps nothing of its parent's."""
    held = PerProcess(object)
    parents = held.get()
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    childs = held.get()
    assert childs is not parents
    assert held.get() is childs


def test_all_threads_have_the_same() -> None:
    """Though all of them ask for it first: two inboxes would let a receipt go astray."""
    count = 8
    together = threading.Barrier(count)

    def make() -> object:
        together.wait(10)
        return object()

    held = PerProcess(make)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(held.get())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == count
    assert len(set(map(id, found))) == 1
