"""Blocking calls of an event loop that nothing waits for."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from celery_stargate.support.daemon_call import Same, await_in_daemon, call_in_daemon


def test_a_call_that_returns() -> None:
    """Its result, or its error, is the caller's."""

    def fail() -> None:
        raise KeyError("x")

    assert asyncio.run(call_in_daemon(lambda: 5, 5.0, "a")) == 5
    with pytest.raises(KeyError):
        asyncio.run(call_in_daemon(fail, 5.0, "a"))


def test_a_call_that_hangs() -> None:
    """Neither the wait nor the end of the event loop waits for it, and it hangs only once."""
    release, calls = threading.Event(), []

    def hang() -> str:
        calls.append(threading.current_thread())
        release.wait(30)
        return "late"

    async def ask() -> list[object]:
        waits = (call_in_daemon(hang, 0.1, "b") for _ in range(2))
        return list(await asyncio.gather(*waits, return_exceptions=True))

    for _ in range(3):
        assert [type(each) for each in asyncio.run(ask())] == [TimeoutError, TimeoutError]
    assert len(calls) == 2
    assert all(each.daemon for each in calls)
    release.set()
    for each in calls:
        each.join(5)
    assert asyncio.run(call_in_daemon(lambda: "new", 5.0, "b")) == "new"


def test_a_call_that_hangs_in_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child has not its thread: it calls anew, and does not wait for that one."""
    release, threads = threading.Event(), []

    def hang() -> str:
        threads.append(threading.current_thread())
        release.wait(30)
        return "of the parent"

    with pytest.raises(TimeoutError):
        asyncio.run(call_in_daemon(hang, 0.1, "e"))
    pid = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid + 1)
        assert asyncio.run(call_in_daemon(lambda: "of the child", 10.0, "e")) == "of the child"
    release.set()
    threads[0].join(5)


def test_a_key_of_one_object() -> None:
    """Equal ones have others, though they cannot be hashed; and it keeps its object."""
    one, equal = ["x"], ["x"]
    assert Same(one) == Same(one)
    assert hash(Same(one)) == hash(Same(one))
    assert Same(one) != Same(equal)
    assert Same(one) != one
    keys = {Same(["x"]) for _ in range(100)}
    assert len(keys) == 100


def test_a_call_that_returns_after_its_loop_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody hears of it."""
    release, threads = threading.Event(), []

    def hang() -> None:
        threads.append(threading.current_thread())
        release.wait(30)

    with pytest.raises(TimeoutError):
        asyncio.run(call_in_daemon(hang, 0.1, "c"))
    release.set()
    threads[0].join(5)
    assert caplog.records == []


def test_a_call_that_is_waited_for_to_its_end() -> None:
    """Its result or error is the caller's; a wait that is cancelled leaves it running."""

    def fail() -> None:
        raise KeyError("x")

    assert asyncio.run(await_in_daemon(lambda: 5, "c")) == 5
    with pytest.raises(KeyError):
        asyncio.run(await_in_daemon(fail, "c"))
    began, release, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        release.wait(30)
        ended.set()

    async def cancel() -> None:
        wait = asyncio.ensure_future(await_in_daemon(slow, "c"))
        assert await asyncio.to_thread(began.wait, 10)
        wait.cancel()
        await asyncio.wait([wait])

    asyncio.run(cancel())
    release.set()
    assert ended.wait(10)


def test_a_call_that_raises_a_timeout_of_its_own() -> None:
    """It did not hang: the next call is made, and not taken for that one."""

    def fail() -> None:
        raise TimeoutError("of the user")

    with pytest.raises(TimeoutError, match="of the user"):
        asyncio.run(call_in_daemon(fail, 20.0, "d"))
    assert asyncio.run(call_in_daemon(lambda: "new", 20.0, "d")) == "new"
