"""End asyncio tasks, for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

__all__ = ["cancel_all"]


async def cancel_all(tasks: Iterable[asyncio.Future[object]]) -> None:
    """Cancel tasks until they have ended; what they raised is dropped.

    Once is not enough: a client library that is just connecting may swallow a cancellation.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=0.2)
        for task in done:
            if not task.cancelled():
                # Retrieved, so that asyncio does not complain of it later.
                task.exception()
