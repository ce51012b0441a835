"""Call a function of the user's from an event loop, and depend on it for nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, TypeVar

from celery_stargate.support.per_process import PerProcess

__all__ = ["Same", "await_in_daemon", "call_in_daemon", "wait_in_daemon"]

_Result = TypeVar("_Result")

#: Calls that did not return in time, by what they call: no more threads are made for those. A
#: forked child has none of them, because it has not their threads.
_hanging: PerProcess[dict[Hashable, Future[Any]]] = PerProcess(dict)


class Same:
    """A key that is equal for the same object alone; the object need not be hashable.

    Arguments:
        value: the object. It is kept with the key, so no other object has its identity meanwhile.
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


async def call_in_daemon(call: Callable[[], _Result], seconds: float, key: Hashable) -> _Result:
    """Run a blocking call in a daemon thread of its own.

    Neither the event loop nor the interpreter waits for that thread when it ends, as they do for
    those of ``asyncio.to_thread``.

    Arguments:
        call: to run.
        seconds: to wait for it.
        key: what it calls. While an earlier call with this key hangs, that one is waited for.

    Raises:
        TimeoutError: it did not return in time.
        Whatever the call raises.
    """
    hanging = _hanging.get()
    future: Future[_Result] | None = hanging.get(key)
    if future is None:
        future = Future()
        # From now on a cancelled wait does not cancel it.
        future.set_running_or_notify_cancel()
        threading.Thread(
            target=_run, args=(future, call), name="stargate-call", daemon=True
        ).start()
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        if future.done():
            raise
        hanging[key] = future
        future.add_done_callback(lambda _: hanging.pop(key, None))
        raise


async def await_in_daemon(call: Callable[[], _Result], name: str) -> _Result:
    """Run a blocking call in a daemon thread of its own, in this context, and wait for it.

    ``asyncio.to_thread`` cannot begin anything when the interpreter has begun to end, and its
    threads are few.

    Arguments:
        call: to run. It goes on if the wait is cancelled.
        name: of the thread.

    Raises:
        Whatever the call raises.
    """
    future: Future[_Result] = Future()
    future.set_running_or_notify_cancel()
    run = copy_context().run
    threading.Thread(target=run, args=(_run, future, call), name=name, daemon=True).start()
    return await asyncio.wrap_future(future)


def wait_in_daemon(call: Callable[[], _Result], seconds: float) -> _Result:
    """Run a blocking call in a daemon thread of its own, and wait so long for it, without a loop.

    Arguments:
        call: to run; its thread goes on if it does not return in time.
        seconds: to wait.

    Raises:
        TimeoutError: it did not return in time.
        Whatever the call raises.
    """
    future: Future[_Result] = Future()
    future.set_running_or_notify_cancel()
    threading.Thread(target=_run, args=(future, call), name="stargate-call", daemon=True).start()
    return future.result(seconds)


def _run(future: Future[_Result], call: Callable[[], _Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001  # raised to whoever waits
        future.set_exception(error)
