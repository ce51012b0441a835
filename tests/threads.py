"""Whether threads that began in a test have ended; and signals at each step of a thread."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["interrupted", "no_new_threads", "signalled", "still_alive"]


def still_alive(
    before: Collection[threading.Thread], *named: str, within: float = 10.0
) -> list[str]:
    """Return the names of threads that have begun since, and do not end in time.

    A thread that has done its work is alive for a moment longer than whoever waits for the work.

    Arguments:
        before: the threads that were alive at first.
        named: only threads whose names contain one of these texts; none: all threads.
        within: seconds for all of them.
    """
    end = time.monotonic() + within
    begun = [
        each
        for each in threading.enumerate()
        if each not in before and (not named or any(text in each.name for text in named))
    ]
    for thread in begun:
        thread.join(max(0.0, end - time.monotonic()))
    return [thread.name for thread in begun if thread.is_alive()]


@contextmanager
def interrupted(after: int, handler: Callable[[], None]) -> Iterator[list[int]]:
    """Run a handler in this thread before a step of what it calls, as Python does on a signal."""
    seen = [0]

    def trace(_frame: FrameType, _event: str, _argument: Any) -> Any:
        # At each line, call and return: a handler runs between two of them.
        seen[0] += 1
        if seen[0] == after:
            handler()
        return trace

    before = sys.gettrace()
    with _no_collector():
        sys.settrace(trace)
        try:
            yield seen
        finally:
            sys.settrace(before)


@contextmanager
def signalled(after: int, handler: Callable[[], None]) -> Iterator[list[int]]:
    """Do as :func:`interrupted` does, only where CPython looks for signals.

    That is where it enters a function of Python's, and after one of C's. A handler that raises
    elsewhere would show what cannot happen: a lock that a ``with`` statement does not release.
    """
    seen = [0]

    def profile(_frame: FrameType, event: str, _argument: Any) -> None:
        if event in {"call", "c_return"}:
            seen[0] += 1
            if seen[0] == after:
                sys.setprofile(before)
                handler()

    before = sys.getprofile()
    with _no_collector():
        sys.setprofile(profile)
        try:
            yield seen
        finally:
            sys.setprofile(before)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Call no finalizers of what other tests left: what a handler raises there is only reported."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def no_new_threads(*named: str) -> Iterator[None]:
    """Let no thread of these names start, as where the system has too many."""

    def refuse(thread: threading.Thread) -> None:
        if thread.name in named:
            raise RuntimeError("can't start new thread")
        start(thread)

    start = threading.Thread.start
    threading.Thread.start = refuse  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
