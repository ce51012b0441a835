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
    everyone = set(tasks)
    pending = everyone
    while pending := {task for task in pending if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=0.2)
    for task in everyone:
        if not task.cancelled():
            # Retrieved, so that asyncio does not complain of it later.
            task.exception()
