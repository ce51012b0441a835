"""Virtual time: an event loop whose clock jumps, and the processes that live in it."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, Self

__all__ = ["Process", "VirtualLoop"]

_PROCESS: ContextVar[Process | None] = ContextVar("_PROCESS", default=None)


class Process:
    """A group of tasks that are paused, and killed, together.

    What would run in it is held while it is paused, and for ever when it is dead: no `finally` of
    a killed process runs.
    """

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.alive = True
        #: What waits for the end of a pause; None where the process runs.
        self.held: list[_Handle] | None = None
        #: Called when it is killed.
        self.on_kill: list[Callable[[], None]] = []
        self._loop = loop
        self._context = copy_context()
        self._context.run(_PROCESS.set, self)
        loop.processes.append(self)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in this process."""
        return self._loop.create_task(work, context=self._context)

    def call(self, work: Callable[[], object]) -> None:
        """Call a function in this process, soon."""
        self._loop.call_soon(work, context=self._context)

    def pause(self) -> None:
        """Let nothing of it run (SIGSTOP)."""
        if self.held is None:
            self.held = []

    def resume(self) -> None:
        """Go on after a pause."""
        if self.alive:
            self.release()

    def kill(self) -> None:
        """End it where it stands (SIGKILL)."""
        if self.alive:
            self.alive = False
            self.pause()
            for each in self.on_kill:
                each()

    def release(self) -> None:
        """Let go of what is held."""
        held, self.held = self.held, None
        self._loop.ready.extend(held or ())


class _Handle(asyncio.TimerHandle):
    """What is to be called, once, and in which process."""

    __slots__ = ("_gone", "args", "callback", "context", "process", "time")

    def __init__(
        self, time: float, callback: Callable[..., object], args: Any, context: Context
    ) -> None:
        self.time = time
        self.callback = callback
        self.args = args
        self.context = context
        self.process = context.get(_PROCESS)
        self._gone = False

    def cancel(self) -> None:
        self._gone = True
        self.callback, self.args = _nothing, ()

    def cancelled(self) -> bool:
        return self._gone

    def when(self) -> float:
        return self.time

    def __repr__(self) -> str:
        return f"<{self.callback!r}>"


def _nothing() -> None:
    pass


class _Task(asyncio.Task[Any]):
    """A task whose place in a set is the same in each run: asyncio keeps tasks in sets."""

    number: int
    process: Process | None

    def __new__(
        cls, work: Coroutine[Any, Any, Any], *, loop: VirtualLoop, context: Context
    ) -> Self:
        self = super().__new__(cls)
        self.number = len(loop.tasks)
        self.process = context.get(_PROCESS)
        return self

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without I/O: where nothing is ready, the clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ready: deque[_Handle] = deque()
        #: All there ever were: none may be collected, and run its `finally`, while others go on.
        self.tasks: list[_Task] = []
        self.processes: list[Process] = []
        #: How many calls were made.
        self.handled = 0
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timer_number = 0
        self._outside = copy_context()
        self._outside.run(_PROCESS.set, None)
        self._context = self._outside

    def time(self) -> float:
        return self.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        handle = _Handle(self.now, callback, args, self._context if context is None else context)
        self.ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> _Handle:
        handle = _Handle(when, callback, args, self._context if context is None else context)
        self._timer_number += 1
        heapq.heappush(self._timers, (when, self._timer_number, handle))
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> _Handle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def outside(self, delay: float, callback: Callable[..., object], *args: Any) -> _Handle:
        """As `call_later`, in no process: it happens even if processes are paused or dead."""
        when = self.now + delay
        handle = _Handle(when, callback, args, self._outside)
        self._timer_number += 1
        heapq.heappush(self._timers, (when, self._timer_number, handle))
        return handle

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: object = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        task = _Task(coro, loop=self, context=self._context if context is None else context)
        self.tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Let the executor, which knows of virtual time, do it."""
        future: asyncio.Future[Any] = executor.begin(self, func, *args)
        return future

    def advance(self, done: Callable[[], bool], until: float) -> bool:
        """Run until a condition holds (True), or up to a moment (False)."""
        asyncio._set_running_loop(self)  # noqa: SLF001
        try:
            while not done():
                if not self.ready:
                    while self._timers and self._timers[0][2].cancelled():
                        heapq.heappop(self._timers)
                    if not self._timers or self._timers[0][0] > until:
                        self.now = max(self.now, until)
                        return False
                    when, _, handle = heapq.heappop(self._timers)
                    self.now = max(self.now, when)
                    self.ready.append(handle)
                self._run_ready()
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001
        return True

    def _run_ready(self) -> None:
        ready = self.ready
        while ready:
            handle = ready.popleft()
            process = handle.process
            if process is not None and process.held is not None:
                process.held.append(handle)
                continue
            self.handled += 1
            context = self._context = handle.context
            try:
                context.run(handle.callback, *handle.args)
            except Exception as error:  # noqa: BLE001
                self.call_exception_handler({"message": "a callback failed", "exception": error})
        self._context = self._outside

    def bury(self, bound: float = 60.0) -> None:
        """End every task, so that nothing is left to be collected half-way.

        Raises:
            RuntimeError: a task does not let itself be cancelled.
        """
        for task in [each for each in self.tasks if not each.done()]:
            task.cancel()
        if not self.advance(lambda: all(task.done() for task in self.tasks), self.now + bound):
            stuck = [task for task in self.tasks if not task.done()]
            raise RuntimeError(f"not cancelled: {stuck}")

    def exceptions(self) -> Generator[BaseException, None, None]:
        """Yield the exceptions of live processes' tasks that were never retrieved."""
        for task in self.tasks:
            if task.process is not None and not task.process.alive:
                continue
            if task.done() and not task.cancelled() and task._log_traceback:  # noqa: SLF001
                error = task.exception()
                if error is not None:
                    yield error
