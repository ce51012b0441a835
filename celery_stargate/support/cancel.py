"""Cancel asyncio tasks and wait until they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["cancel_all"]


async def cancel_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks until they have ended; their errors are dropped.

    They are cancelled repeatedly: a client library that is connecting may swallow a cancellation.
    """
    pending = set(tasks)
    for task in pending:
        # asyncio warns about an error that nobody retrieved; this function may be cancelled itself.
        task.add_done_callback(_retrieve)
    while pending := {task for task in pending if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=0.2)


def _retrieve(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
