"""An event loop that works until the process has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple, Unpack

from celery_stargate.support.daemon import DaemonThread

__all__ = ["LastingLoop"]

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")


class LastingLoop(asyncio.SelectorEventLoop):
    """An event loop that does not need ``concurrent.futures``, which shuts down before ``atexit``.

    asyncio resolves the names of hosts in the default executor. Here each such call has a thread of
    its own; there are few.
    """

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[_Arguments]], _Result],
        *args: *_Arguments,
    ) -> asyncio.Future[_Result]:
        """Run a function in an executor; None: in a thread of its own."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        own = DaemonThread("stargate-names")
        try:
            future = super().run_in_executor(own, func, *args)
        except RuntimeError:
            # Python 3.12 and later start no thread while the process ends.
            future = self.create_future()
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001  # whoever waits gets it
                future.set_exception(error)
            return future
        future.add_done_callback(lambda _: own.shutdown())
        return future
