"""The outbox for the calls of one event loop: what they put at the same time goes out together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as NoAnswer

from celery_stargate.lanes.connections import Connections, store_error, store_errors
from celery_stargate.lanes.inbox import READ_COUNT, InboxEntry, forget_inboxes, read_inbox
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.passing import Reason, note_reason, reasons_into
from celery_stargate.lanes.puts import AskedPut, begin_arguments
from celery_stargate.lanes.registry import CallerRegistry
from celery_stargate.lanes.scripts import Argument, AsyncScripts, Callers, Run, lane_keys
from celery_stargate.lanes.waiter import Waiter
from celery_stargate.lanes.wire import PutWord, read_put
from celery_stargate.support.adaptive_limit import AdaptiveLimit
from celery_stargate.support.alarms import EarliestTimer
from celery_stargate.support.bound import USUAL, bounded
from celery_stargate.support.log import logger_of
from celery_stargate.support.shared_task import SharedTasks

__all__ = ["LoopOutbox"]

logger = logger_of(__name__)

#: How many puts, and how many bytes of frames, one round trip holds at most; all of them may be one
#: run of a script, which must not occupy Redis for long.
_COUNT, _BYTES = 100, 1 << 20
#: How often a round trip is tried again after its connection broke, where there is one server.
_RETRIES = 2
#: Seconds before the first try again, and at most before each.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.5


class LoopOutbox:
    """All lanes of one prefix, as the calls of one event loop use them.

    Each put ends within the seconds that it is given.

    Arguments:
        connections: to the Redis that holds the lanes.
        prefix: what all keys begin with.
        registry: where lanes are announced.
        callers: those of the process.
    """

    def __init__(
        self, connections: Connections, prefix: str, registry: CallerRegistry, callers: Callers
    ) -> None:
        self._prefix = prefix
        self._registry = registry
        self._callers = callers
        self._redis = connections.asyncio()
        self._retries = None if connections.waits_for_master else _RETRIES
        self._scripts = AsyncScripts(self._redis)
        #: By bucket: a shard that is down holds up nobody who puts into another one.
        self._pipes: dict[int, _Pipe] = {}
        self._announcing = SharedTasks("stargate-announce")
        #: How many entries of an inbox one read returns.
        self._count = AdaptiveLimit(READ_COUNT)

    async def begin(self, asked: AskedPut, waiter: Waiter, seconds: float) -> None:
        """Begin to record a context and its messages in a lane, once.

        Arguments:
            asked: what is put.
            waiter: is told what comes of it.
            seconds: until it is told that there was no answer.

        Raises:
            StoreUnavailable: the lane could not be announced.
        """
        lane = asked.lane
        if not self._registry.is_announced(lane):
            end = time.monotonic() + seconds
            with store_errors():
                await self._announce(asked, seconds)
            seconds = end - time.monotonic()
        self._pipe(lane).put(asked, waiter, seconds)

    async def subscribe(
        self, inbox: str, handled: Sequence[str], timeout: float
    ) -> list[InboxEntry]:
        """Wait for outcomes in an inbox.

        Arguments, result and errors are those of
        :meth:`Inboxes.subscribe <celery_stargate.lanes.inbox.Inboxes.subscribe>`.
        """
        with store_errors():
            given = inbox, handled, timeout, self._count
            return await read_inbox(self._redis, self._prefix, *given)

    async def forget(self, inboxes: Sequence[str]) -> None:
        """Delete inboxes, as :meth:`Inboxes.forget <celery_stargate.lanes.inbox.Inboxes.forget>`.

        Raises:
            StoreUnavailable: Redis did not answer within 5 s.
        """
        with store_errors():
            await forget_inboxes(self._redis, self._prefix, inboxes)

    async def aclose(self) -> None:
        """Close the connections; a later call connects again."""
        await self._redis.aclose()

    async def _announce(self, asked: AskedPut, seconds: float) -> None:
        """Make a lane known, as :meth:`CallerRegistry.announce` does, in a thread; that is rare."""

        def announce() -> None:
            # It ends first, and says why.
            with bounded(0.9 * seconds):
                self._registry.announce(asked.lane, asked.options)

        async with _within(seconds):
            await self._announcing.run(asked.lane, announce)

    def _heal(self, asked: AskedPut) -> None:
        """Do as :meth:`CallerRegistry.heal` does, in a thread, for which nobody waits."""
        lane = asked.lane
        self._registry.forget(lane)

        def heal() -> None:
            with bounded(USUAL):
                self._registry.heal(lane, asked.options)

        try:
            threading.Thread(target=heal, name="stargate-announce", daemon=True).start()
        except RuntimeError as error:
            # There are too many threads, or the interpreter ends.
            logger.warning(
                "the lane is not announced yet, the next put does it: %s", error, lane=lane
            )

    def _pipe(self, lane: Lane) -> _Pipe:
        bucket = lane.bucket(self._prefix)
        if bucket not in self._pipes:
            self._pipes[bucket] = _Pipe(
                self._scripts, self._callers, self._prefix, self._retries, self._heal
            )
        return self._pipes[bucket]


class _Put(msgspec.Struct, frozen=True, gc=False):
    """One put on its way."""

    asked: AskedPut
    together: tuple[object, ...] | None
    arguments: list[Argument]
    waiter: Waiter
    #: When the waiter is told that there was no answer, by the clock of the event loop.
    end: float


class _Pipe:
    """Sends puts in their order, one round trip after another; meanwhile the next puts gather.

    Puts of new contexts that have the rest in common are one run of a script.

    Arguments:
        scripts: of the event loop.
        callers: those of the process.
        prefix: what all keys begin with.
        retries: how often a round trip is repeated after its connection broke; None: for as long
            as somebody waits.
        heal: called with a put whose lane could not be announced.
    """

    def __init__(
        self,
        scripts: AsyncScripts,
        callers: Callers,
        prefix: str,
        retries: int | None,
        heal: Callable[[AskedPut], None],
    ) -> None:
        self._scripts = scripts
        self._callers = callers
        self._prefix = prefix
        self._retries = retries
        self._heal = heal
        self._waiting: deque[_Put] = deque()
        self._task: asyncio.Task[None] | None = None
        #: The puts of the round trip that is under way.
        self._sent: Sequence[_Put] = ()
        self._reason = Reason()
        self._timer = EarliestTimer(self._give_up)

    def put(self, asked: AskedPut, waiter: Waiter, seconds: float) -> None:
        """Put a context, and tell who waits for it what comes of it.

        Arguments:
            seconds: until the waiter is told that there was no answer.
        """
        loop, together = asyncio.get_running_loop(), asked.together
        made = asked.arguments if together is None else asked.of_many
        put = _Put(asked, together, made(self._prefix), waiter, loop.time() + seconds)
        self._waiting.append(put)
        if self._task is None or self._task.done():
            # It begins when all calls that are ready now have come here.
            self._task = loop.create_task(self._send())
        self._timer.by(loop, put.end)

    def _give_up(self, now: float) -> float | None:
        """Tell those whose time is over; nearly all puts are answered long before."""
        pending = [put for put in (*self._sent, *self._waiting) if put.waiter.on_its_way]
        for put in pending:
            if put.end <= now:
                error = self._reason.error or NoAnswer("no answer in time")
                put.waiter.failed(store_error(error))
        return min((put.end for put in pending if put.end > now), default=None)

    async def _send(self) -> None:
        try:
            while batch := self._next():
                self._sent, self._reason.error = batch, None
                try:
                    with reasons_into(self._reason):
                        await self._put(batch)
                except Exception as error:  # noqa: BLE001  # those who wait are told
                    for each in batch:
                        each.waiter.failed(store_error(error))
                self._sent = ()
        finally:
            # Where this task was cancelled, with its event loop.
            for each in (*self._sent, *self._waiting):
                each.waiter.failed(asyncio.CancelledError())
            self._timer.stop()

    def _next(self) -> list[_Put]:
        """Return the puts of the next round trip; those that nobody waits for are left out."""
        batch: list[_Put] = []
        size = 0
        while self._waiting and len(batch) < _COUNT:
            put = self._waiting[0]
            size += put.asked.size
            if batch and (size > _BYTES or put.together != batch[0].together):
                break
            self._waiting.popleft()
            if put.waiter.on_its_way:
                batch.append(put)
        return batch

    async def _put(self, batch: Sequence[_Put]) -> None:
        if batch[0].together is None:
            await self._put_each(batch)
        else:
            await self._put_together(batch)

    async def _put_each(self, batch: Sequence[_Put]) -> None:
        with self._callers.lend(len(batch)) as callers:
            runs: list[Run] = [
                (
                    lane_keys(self._prefix, each.asked.lane, caller.name, listed=True),
                    [caller.token(), *each.arguments],
                )
                for each, caller in zip(batch, callers, strict=True)
            ]
            if len(runs) == 1:
                replies = [await self._persist(batch, lambda: self._scripts.run("put", *runs[0]))]
            else:
                replies = await self._persist(batch, lambda: self._scripts.run_many("put", runs))
        for each, reply in zip(batch, replies, strict=True):
            self._tell(each, reply)

    async def _put_together(self, batch: Sequence[_Put]) -> None:
        asked = batch[0].asked
        with self._callers.lend() as [caller]:
            keys = lane_keys(self._prefix, asked.lane, caller.name, listed=True)
            arguments: list[Argument] = [caller.token(), *asked.of_all]
            for each in batch:
                arguments += each.arguments
            arguments += begin_arguments(asked.lane, asked.options)
            reply = await self._persist(
                batch, lambda: self._scripts.run("put_many", keys, arguments)
            )
        word, number, unlisted = read_put(reply)
        if word is PutWord.FULL:
            # Some of them may have room.
            self._waiting.extendleft(
                msgspec.structs.replace(
                    each, together=None, arguments=each.asked.arguments(self._prefix)
                )
                for each in reversed(batch)
            )
            return
        for first, each in enumerate(batch, start=number):
            each.waiter.recorded(first)
        if unlisted:
            self._heal(asked)

    async def _persist(self, batch: Sequence[_Put], run: Callable[[], Awaitable[Any]]) -> Any:
        """Run until it succeeds or fails for good. A repeat is safe: it has the same tokens."""
        wait, broken = _FIRST_WAIT, 0
        while True:
            try:
                return await run()
            except (LostConnection, NoAnswer, OSError) as error:
                note_reason(error)
                broken += not isinstance(error, NoAnswer)
                if self._retries is not None and broken > self._retries:
                    raise
                if not any(each.waiter.on_its_way for each in batch):
                    raise
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _tell(self, put: _Put, reply: Any) -> None:
        """Tell who waits for a put what came of it; the reply may be an error."""
        try:
            if isinstance(reply, Exception):
                raise reply
            read = read_put(reply)
            first = put.asked.number(read)
        except Exception as error:  # noqa: BLE001  # it is told
            put.waiter.failed(store_error(error))
        else:
            put.waiter.recorded(first)
            if read.unlisted:
                self._heal(put.asked)


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    end = time.monotonic() + seconds
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        if time.monotonic() < end:
            raise
        raise NoAnswer("no answer in time") from None
