"""A daemon thread that does one piece of work after another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar

from celery_stargate.support.exits import as_error

__all__ = ["DaemonThread"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class DaemonThread(Executor):
    """An executor of one thread that never keeps the process from ending.

    ``ThreadPoolExecutor`` waits for its threads when the interpreter ends, however long they hang
    in a server that does not answer.

    Arguments:
        name: of the thread.
        around: makes a context in which each piece of work is done.
    """

    def __init__(
        self, name: str, around: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self._name = name
        self._around = around
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._stopped = False

    def submit(
        self,
        fn: Callable[_Arguments, _Result],
        /,
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> Future[_Result]:
        """Do a piece of work after those that were given before.

        Raises:
            RuntimeError: the thread was shut down, or cannot be started now.
        """
        future: Future[_Result] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                with self._around():
                    found = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  # whoever waits gets it
                # An event loop that waits would end on one that is no ``Exception``.
                future.set_exception(as_error(error))
            else:
                future.set_result(found)

        with self._lock:
            if self._stopped:
                raise RuntimeError(f"thread {self._name} was shut down")
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                # The system may have too many now; the next piece of work tries again.
                thread.start()
                self._thread = thread
            self._work.put(work)
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """End the thread after the work that it does now.

        Arguments:
            wait: wait until it has ended.
            cancel_futures: has no effect: work that was not begun is never begun.
        """
        with self._lock:
            self._stopped = True
            thread = self._thread
        self._work.put(None)
        if wait and thread is not None:
            thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None and not self._stopped:
            work()
