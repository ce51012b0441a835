"""A child never finds locked what a thread of its parent held at the fork."""

from __future__ import annotations

import os
import threading

import pytest

from celery_stargate.support import fork_lock
from celery_stargate.support.fork_lock import ForkLock


# Coverage has locks of its own, which another thread may hold at the fork.
@pytest.mark.no_cover
def test_a_fork_waits_for_who_holds_it() -> None:
    """And both processes can take it afterwards."""
    lock, plain, ended = ForkLock(), threading.Lock(), threading.Event()

    def work() -> None:
        while not ended.is_set():
            with lock, plain:
                pass

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if not child:
                os._exit(0 if plain.acquire(timeout=5.0) else 1)
            waiting = threading.Timer(60.0, os.kill, (child, 9))
            waiting.start()
            _, status = os.waitpid(child, 0)
            waiting.cancel()
            assert os.waitstatus_to_exitcode(status) == 0
            with lock:
                pass
    finally:
        ended.set()
        thread.join()


def test_a_signals_handler_that_interrupts_who_holds_it() -> None:
    """It runs in the same thread, which would wait for itself."""
    lock, ended = ForkLock(), threading.Event()

    def work() -> None:
        with lock, lock:
            pass
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    assert ended.wait(10.0)


def test_it_is_held_while_the_process_forks() -> None:
    """So no other thread has it then; afterwards it is free, in both processes."""
    lock, found = ForkLock(), list[bool]()

    def is_free() -> bool:
        def take() -> None:
            plain = vars(lock)["_lock"]
            found.append(plain.acquire(blocking=False))
            if found[-1]:
                plain.release()

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        return found[-1]

    vars(fork_lock)["_before"]()
    try:
        assert not is_free()
    finally:
        vars(fork_lock)["_after"]()
    assert is_free()
