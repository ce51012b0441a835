"""One bound for all I/O of a call, however many steps it has."""

from __future__ import annotations

import time
import weakref
from contextvars import ContextVar, Token
from typing import TypeAlias

__all__ = ["USUAL", "Bounded", "bounded", "call_bound", "time_left"]

#: Seconds that a call may take where its caller gave no time.
USUAL = 5.0


#: A bound that was entered: its block, its end by the monotonic clock, and the bound around it. A
#: block that runs keeps its :class:`Bounded` alive. A signal handler may raise just before
#: ``__exit__``, which is then never called: only this tells that the block has ended.
_Entered: TypeAlias = "tuple[weakref.ref[Bounded], float, _Entered | None]"

#: The innermost bound of this thread's, or this task's, call.
_entered: ContextVar[_Entered | None] = ContextVar("celery_stargate_bound", default=None)


class Bounded:
    """A block whose I/O ends in bounded time; a bound around it holds too.

    Use it in a ``with`` statement: it counts while it exists.

    Arguments:
        seconds: from the beginning of the block; None: as long as the bound around it allows.
        usual: seconds where ``seconds`` is None and there is no bound around it.
    """

    __slots__ = ("__weakref__", "_seconds", "_token", "_usual")

    def __init__(self, seconds: float | None, usual: float = USUAL) -> None:
        self._seconds = seconds
        self._usual = usual
        self._token: Token[_Entered | None] | None = None

    def __enter__(self) -> None:
        around, seconds = _running(), self._seconds
        if around is None:
            end = time.monotonic() + (self._usual if seconds is None else seconds)
        elif seconds is None:
            end = around[1]
        else:
            end = min(around[1], time.monotonic() + seconds)
        self._token = _entered.set((weakref.ref(self), end, around))

    def __exit__(self, *exception: object) -> None:
        if self._token is not None:
            _entered.reset(self._token)


def bounded(seconds: float) -> Bounded:
    """Bound a block by ``seconds``, or by the bound around it if that ends before."""
    return Bounded(seconds)


def call_bound() -> Bounded:
    """Bound a block by the bound around it, or by 5 s where there is none."""
    return Bounded(None)


def time_left() -> float:
    """Return the seconds until the bound ends, 0 if it has ended; 5 s where there is none."""
    found = _running()
    return USUAL if found is None else max(0.0, found[1] - time.monotonic())


def _running() -> _Entered | None:
    """Return the innermost bound whose block has not ended."""
    found = _entered.get()
    while found is not None and found[0]() is None:
        found = found[2]
    return found
