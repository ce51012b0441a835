"""One bound for all I/O of a call, however many steps it has."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token

__all__ = ["USUAL", "Bounded", "bounded", "call_bound", "time_left"]

#: Seconds that a call may take where its caller gave no time.
USUAL = 5.0

#: When the bound of this thread's, or this task's, call ends, by the monotonic clock.
_end: ContextVar[float | None] = ContextVar("celery_stargate_bound", default=None)


class Bounded:
    """A block whose I/O ends in bounded time; a bound around it holds too.

    Arguments:
        seconds: from the beginning of the block; None: as long as the bound around it allows.
        usual: seconds where ``seconds`` is None and there is no bound around it.
    """

    __slots__ = ("_seconds", "_token", "_usual")

    def __init__(self, seconds: float | None, usual: float = USUAL) -> None:
        self._seconds = seconds
        self._usual = usual
        self._token: Token[float | None] | None = None

    def __enter__(self) -> None:
        end, seconds = _end.get(), self._seconds
        if end is None:
            end = time.monotonic() + (self._usual if seconds is None else seconds)
        elif seconds is not None:
            end = min(end, time.monotonic() + seconds)
        self._token = _end.set(end)

    def __exit__(self, *exception: object) -> None:
        if self._token is not None:
            _end.reset(self._token)


def bounded(seconds: float) -> Bounded:
    """Bound a block by ``seconds``, or by the bound around it if that ends before."""
    return Bounded(seconds)


def call_bound() -> Bounded:
    """Bound a block by the bound around it, or by 5 s where there is none."""
    return Bounded(None)


def time_left() -> float:
    """Return the seconds until the bound ends, 0 if it has ended; 5 s where there is none."""
    end = _end.get()
    return USUAL if end is None else max(0.0, end - time.monotonic())
