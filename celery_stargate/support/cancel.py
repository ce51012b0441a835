"""End asyncio tasks, for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["cancel_all"]


async def cancel_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks until they have ended; what they raised is dropped.

    Once is not enough: a client library that is just connecting may swallow a cancellation.
    """
    pending = set(tasks)
    for task in pending:
        # Also where this is cancelled itself: asyncio would complain of what nobody looked at.
        task.add_done_callback(_look_at)
    while pending := {task for task in pending if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=0.2)


def _look_at(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
