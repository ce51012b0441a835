"""What the calls of one event loop share: connections of its own, and inboxes that they read."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from celery_stargate.calls.loop_inbox import LoopInbox, LoopTicket
from celery_stargate.calls.prepare import Call
from celery_stargate.calls.waiting import Schedule, Step
from celery_stargate.errors import ConfigurationError, StoreUnavailable
from celery_stargate.lanes.inbox import new_inbox
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.waiter import Waiter
from celery_stargate.model.context import new_contexts
from celery_stargate.support.bound import bounded
from celery_stargate.support.shared_task import SharedTasks

if TYPE_CHECKING:
    from celery_stargate.calls.runtime import Runtime

__all__ = ["LoopCalls", "Loops", "running_loop"]

#: Seconds that one look for an owner may take.
_LOOK_BOUND = 5.0
#: Seconds that the end of an event loop waits for Redis to delete its inboxes.
_FORGET_BOUND = 1.0


class LoopCalls:
    """What the calls of one event loop share.

    What blocks and is rare runs in a thread, once for all calls that need it at the same time.

    Arguments:
        runtime: of the app.
        on_close: called when the loop ends.
        monotonic: the clock.
    """

    def __init__(
        self,
        runtime: Runtime,
        on_close: Callable[[], object],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runtime = runtime
        self._on_close = on_close
        self._monotonic = monotonic
        self.outbox = runtime.outbox.in_loop()
        #: By bucket.
        self._inboxes: dict[int, LoopInbox] = {}
        self._apart = SharedTasks("stargate-call")
        self._until_shutdown = self._live()
        #: New ids.
        self.contexts = new_contexts()
        #: The app's changed settings when a call of this step of the loop found that it is not
        #: eager.
        self._durable: tuple[int, object] | None = None

    async def open(self) -> None:
        """Close with the event loop, when that ends its asynchronous generators."""
        await anext(self._until_shutdown)

    async def aclose(self) -> None:
        """Close the connections; the next call of this loop begins anew."""
        await self._until_shutdown.aclose()

    def inbox_for(self, lane: Lane) -> LoopInbox:
        """Return where this loop gets the outcomes of a lane's calls."""
        keyspace = self._runtime.settings.keyspace
        bucket = lane.bucket(keyspace)
        found = self._inboxes.get(bucket)
        if found is None:
            found = self._inboxes[bucket] = LoopInbox(self.outbox, new_inbox(keyspace, bucket))
        return found

    @property
    def is_durable(self) -> bool:
        """Whether a call of this step of the loop found that the app is not eager, as it still is.

        The others of the step do not ask Celery again: its answer takes longer than their checks.
        """
        return self._durable is not None and self._durable == self._changes()

    def note_durable(self) -> None:
        """Note until the end of this step of the loop that the app is not eager."""
        if self._durable is None:
            # First: a signal's handler that raises must not leave a note that nothing ends.
            asyncio.get_running_loop().call_soon(self._end_step)
            self._durable = self._changes()

    def _end_step(self) -> None:
        self._durable = None

    def _changes(self) -> tuple[int, object]:
        """Return what tells whether the app was made eager: code may do so within a step."""
        changes = self._runtime.app.conf.changes or {}
        # Under another name, such as CELERY_ALWAYS_EAGER, it is one more.
        return len(changes), changes.get("task_always_eager")

    async def begin(
        self,
        call: Call,
        record: Record,
        waiter: Waiter,
        timeout: float,
        bound: float,
        *,
        fresh: bool,
    ) -> None:
        """Begin to record a call, once some process owns lanes.

        Arguments:
            call, record, waiter, timeout, bound, fresh: as :meth:`Recorder.begin` takes them.

        Raises:
            As :meth:`Recorder.begin`.
        """
        runtime = self._runtime
        with call.active():
            if not runtime.is_owned():
                end = self._monotonic() + bound
                await self.require_owner(bound)
                bound = end - self._monotonic()
            await runtime.recorder.begin(
                self.outbox, call, record, waiter, timeout=timeout, bound=bound, fresh=fresh
            )

    async def require_owner(self, seconds: float) -> None:
        """Do as :meth:`Runtime.require_owner` does; no thread is needed while an owner is known.

        Raises:
            StoreUnavailable: Redis did not answer within ``seconds``.
        """
        runtime = self._runtime
        if runtime.is_owned():
            return

        def look() -> None:
            with bounded(_LOOK_BOUND):
                runtime.require_owner()

        try:
            async with asyncio.timeout(seconds):
                await self._apart.run("owner", look)
        except TimeoutError:
            raise StoreUnavailable(f"Redis did not answer within {seconds:g} s") from None

    async def wait(self, ticket: LoopTicket, schedule: Schedule, lanes: Sequence[Lane]) -> bool:
        """Wait for what a ticket stands for, as :meth:`Waiting.until` does in a thread.

        Arguments:
            schedule: of the call, made by :meth:`Runtime.schedule`.
            lanes: where its messages are.

        Returns:
            Whether the outcome is there; False if the wait was given up.

        Raises:
            What the call is told instead: it was not recorded.
        """
        while True:
            step, pause = schedule.next(self._monotonic(), ticket.missing)
            if step is Step.GIVE_UP:
                return False
            if step is Step.SETTLE:
                await self.settle_overdue(lanes)
            elif step is Step.LOOK:
                await self.look_for_owner()
            if await ticket.inbox.wait(ticket, pause):
                return True

    async def look_for_owner(self) -> None:
        """Do as :meth:`Runtime.look_for_owner` does."""
        if not self._runtime.is_owned():
            await self._apart.run("look", self._runtime.look_for_owner)

    async def settle_overdue(self, lanes: Sequence[Lane]) -> None:
        """Do as :meth:`Runtime.settle_overdue` does."""
        await self._apart.run(tuple(lanes), lambda: self._runtime.settle_overdue(lanes))

    def take_inboxes(self) -> list[str]:
        """Return the names of the inboxes in which no call waits; later calls begin others."""
        inboxes, self._inboxes = self._inboxes, {}
        return [each.name for each in inboxes.values() if not each.is_waited_for]

    async def _live(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._on_close()
            try:
                await self._forget_inboxes()
            finally:
                await self.outbox.aclose()

    async def _forget_inboxes(self) -> None:
        """Delete inboxes: many short loops would fill Redis, which keeps each for an hour."""
        if unread := self.take_inboxes():
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(_FORGET_BOUND):
                    await self.outbox.forget(unread)


class Loops:
    """The event loops of this process that have calls.

    Arguments:
        runtime: of the app.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        #: By process. A forked child keeps what it inherited: to let it go would close it in the
        #: loop of its parent, with which it shares the selector.
        self._loops: dict[int, dict[asyncio.AbstractEventLoop, LoopCalls]] = {}

    def find(self) -> LoopCalls | None:
        """Return what the calls of the running event loop share, if there were any.

        None also where no event loop of asyncio runs: eager calls need none.
        """
        try:
            return self._own().get(asyncio.get_running_loop())
        except RuntimeError:
            return None

    async def here(self) -> LoopCalls:
        """Return what the calls of the running event loop share.

        Raises:
            ConfigurationError: no event loop of asyncio runs in this thread.
        """
        loop, loops = running_loop(), self._own()
        found = loops.get(loop)
        if found is None:
            self._drop_closed(loops)
            found = loops[loop] = LoopCalls(self._runtime, lambda: loops.pop(loop, None))
            await found.open()
        return found

    async def aclose(self) -> None:
        """Close what the running event loop has."""
        found = self.find()
        if found is not None:
            await found.aclose()

    def close(self) -> None:
        """Let each loop close what it has, as soon as it runs; called from any thread."""
        for loop, calls in tuple(self._own().items()):
            _close_in(loop, calls)

    def _drop_closed(self, loops: dict[asyncio.AbstractEventLoop, LoopCalls]) -> None:
        """Forget loops that were closed without ending their generators.

        They took their connections with them, so a thread deletes their inboxes, for which nobody
        waits.
        """
        dropped = [loops.pop(each, None) for each in tuple(loops) if each.is_closed()]
        unread = [name for each in dropped if each is not None for name in each.take_inboxes()]
        if not unread:
            return

        def forget() -> None:
            with suppress(StoreUnavailable):
                self._runtime.outbox.inboxes.forget(unread)

        with suppress(RuntimeError):
            # It is raised where there are too many threads, or the interpreter ends.
            threading.Thread(target=forget, name="stargate-forget", daemon=True).start()

    def _own(self) -> dict[asyncio.AbstractEventLoop, LoopCalls]:
        process = os.getpid()
        found = self._loops.get(process)
        return self._loops.setdefault(process, {}) if found is None else found


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        ConfigurationError: none of asyncio runs in this thread.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "the awaitable calls need an event loop of asyncio, and none runs in this thread; "
            "under trio call produce or produce_many with trio.to_thread.run_sync"
        ) from None


def _close_in(loop: asyncio.AbstractEventLoop, calls: LoopCalls) -> None:
    def close() -> None:
        closing.add(task := loop.create_task(calls.aclose()))
        task.add_done_callback(closing.discard)

    closing: set[asyncio.Task[None]] = set()
    try:
        loop.call_soon_threadsafe(close)
    except RuntimeError:
        # It is closed already.
        return
