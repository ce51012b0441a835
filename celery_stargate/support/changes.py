"""Wait until parts that work together have reached a condition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Changes"]


class Changes:
    """A condition variable for one event loop: no lock, as only one task runs at a time.

    Whoever changes something calls :meth:`notify`; whoever waits looks again each time.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Let every waiting task test its condition again."""
        self._event.set()

    async def wait(self) -> None:
        """Wait for the next :meth:`notify`."""
        self._event.clear()
        await self._event.wait()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition is true; return at once if it is.

        Arguments:
            condition: depends only on what is announced by :meth:`notify`.
        """
        while not condition():
            await self.wait()
