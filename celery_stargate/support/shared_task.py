"""One thread for all tasks of an event loop that need the same blocking call at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextvars import Context

from celery_stargate.support.daemon_call import await_in_daemon

__all__ = ["SharedTasks"]


class SharedTasks:
    """Runs blocking calls in threads, each once for all tasks that ask for it meanwhile.

    Arguments:
        name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: dict[Hashable, asyncio.Task[None]] = {}

    async def run(self, key: Hashable, call: Callable[[], None]) -> None:
        """Run a call, or wait for the one that runs with this key.

        Arguments:
            key: what the call does.
            call: it ends in bounded time. It goes on if those who wait for it are cancelled.

        Raises:
            Whatever the call raises.
        """
        running = self._running.get(key)
        if running is None:
            # Not within the bound of the call that happens to be the first.
            running = asyncio.get_running_loop().create_task(
                await_in_daemon(call, self._name), context=Context()
            )
            self._running[key] = running
            running.add_done_callback(lambda ended: self._end(key, ended))
        await asyncio.shield(running)

    def _end(self, key: Hashable, ended: asyncio.Task[None]) -> None:
        del self._running[key]
        if not ended.cancelled():
            # Perhaps nobody waits for it any more; then asyncio would log its error.
            ended.exception()
