"""Run what blocks in a thread, for a call in an event loop, in bounded time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from celery_stargate.errors import StoreUnavailable
from celery_stargate.support.bound import bounded

__all__ = ["in_thread"]

_Result = TypeVar("_Result")

#: Seconds that a thread has past the bound: it tells better why it failed.
_GRACE = 0.25


async def in_thread(
    seconds: float,
    function: Callable[[], _Result],
    undo: Callable[[_Result], object] = lambda _: None,
) -> _Result:
    """Call a function in one of the event loop's threads, and wait for it so long at most.

    The loop has few threads. While Redis does not answer, calls would wait for them one behind the
    other, each for the whole time of those before it. So the wait for a thread counts, and a call
    whose time is over when its turn comes does nothing.

    Arguments:
        seconds: the bound of the call, with the wait for a thread.
        function: it may raise anything.
        undo: gets the result if nobody waits for it any more.

    Raises:
        StoreUnavailable: it took too long. The function may still go on, within its bound.
    """
    end = time.monotonic() + seconds

    def run() -> _Result:
        left = end - time.monotonic()
        if left <= 0:
            raise StoreUnavailable("no thread of the event loop was free in time")
        with bounded(left):
            return function()

    call = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        await asyncio.wait([call], timeout=seconds + _GRACE)
    finally:
        if not call.done():
            call.add_done_callback(lambda ended: _drop(ended, undo))
    if not call.done():
        raise StoreUnavailable(f"Redis did not answer within {seconds:g} s")
    return call.result()


def _drop(ended: asyncio.Future[_Result], undo: Callable[[_Result], object]) -> None:
    if not ended.cancelled() and ended.exception() is None:
        undo(ended.result())
