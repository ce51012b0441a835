"""Bound a run's time, and say how far it is."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .runner import TooLong

__all__ = ["bounded", "end_on_sigterm", "tell"]


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Raise :class:`~benchmarks.runner.TooLong` in the block when the time is over."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def end_on_sigterm() -> None:
    """Leave by the way on which everything that was started is ended."""
    signal.signal(signal.SIGTERM, _end)


def tell(line: str) -> None:
    """Say how far it is."""
    print(line, file=sys.stderr, flush=True)


def _give_up(number: int, frame: object) -> None:
    raise TooLong


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
