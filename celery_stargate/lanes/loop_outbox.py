"""The outbox for the calls of one event loop: what they put at the same time goes out together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as NoAnswer

from celery_stargate.lanes.connections import Connections, store_errors
from celery_stargate.lanes.inbox import InboxEntry, read_inbox
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.puts import AskedPut
from celery_stargate.lanes.registry import CallerRegistry
from celery_stargate.lanes.scripts import AsyncScripts, Callers, Run, lane_keys
from celery_stargate.lanes.wire import read_put
from celery_stargate.support.bound import bounded, time_left
from celery_stargate.support.shared_task import SharedTasks

__all__ = ["LoopOutbox"]

#: How many puts, and how many bytes of frames, one pipeline holds at most.
_COUNT, _BYTES = 200, 4 << 20
#: How often a put is tried again after its connection broke, where there is one server.
_RETRIES = 2
#: Seconds before the first try again, and at most before each.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.5


class LoopOutbox:
    """All lanes of one prefix, as the calls of one event loop use them.

    Each call ends within the bound around it (:mod:`celery_stargate.support.bound`), and within
    5 s where there is none.

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

    async def put(self, asked: AskedPut, options: Mapping[str, object] | None = None) -> int:
        """Record a context and its messages in a lane, once.

        Arguments:
            asked: what is put.
            options: as in :meth:`Outbox.put <celery_stargate.lanes.outbox.Outbox.put>`.

        Returns:
            As ``Outbox.put``.

        Raises:
            As ``Outbox.put``.
        """
        lane, arguments = asked.lane, asked.arguments(self._prefix)
        with store_errors(), self._callers.lend() as [caller]:
            async with _within(time_left()):
                await self._announce(lane, options)
                run = lane_keys(self._prefix, lane, caller.name), [caller.token(), *arguments]
                reply = read_put(await self._persist(lane, run, asked.size))
                if asked.begins_lane(reply):
                    await self._announce(lane, options, again=True)
        return asked.number(reply)

    async def subscribe(
        self, inbox: str, handled: Sequence[str], timeout: float
    ) -> list[InboxEntry]:
        """Wait for outcomes in an inbox.

        Arguments, result and errors are those of
        :meth:`Inboxes.subscribe <celery_stargate.lanes.inbox.Inboxes.subscribe>`.
        """
        with store_errors():
            return await read_inbox(self._redis, self._prefix, inbox, handled, timeout)

    async def aclose(self) -> None:
        """Close the connections; a later call connects again."""
        await self._redis.aclose()

    async def _announce(
        self, lane: Lane, options: Mapping[str, object] | None, *, again: bool = False
    ) -> None:
        """Make a lane known, as :meth:`CallerRegistry.announce` does, in a thread; that is rare."""
        if not again and self._registry.is_announced(lane):
            return
        left = time_left()

        def announce() -> None:
            with bounded(left):
                self._registry.announce(lane, options, again=again)

        await self._announcing.run(lane, announce)

    async def _persist(self, lane: Lane, run: Run, size: int) -> Any:
        """Put until it succeeds or fails for good. A repeat is safe: it has the same token."""
        bucket = lane.bucket(self._prefix)
        if bucket not in self._pipes:
            self._pipes[bucket] = _Pipe(self._scripts)
        wait, broken = _FIRST_WAIT, 0
        while True:
            try:
                return await self._pipes[bucket].put(run, size)
            except (LostConnection, NoAnswer, OSError) as error:
                broken += not isinstance(error, NoAnswer)
                if (self._retries is not None and broken > self._retries) or time_left() <= wait:
                    raise
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


class _Put(NamedTuple):
    """One put on its way."""

    run: Run
    size: int
    reply: asyncio.Future[Any]


class _Pipe:
    """Sends puts in their order, one pipeline after another; meanwhile the next puts gather.

    Arguments:
        scripts: of the event loop.
    """

    def __init__(self, scripts: AsyncScripts) -> None:
        self._scripts = scripts
        self._waiting: deque[_Put] = deque()
        self._task: asyncio.Task[None] | None = None

    async def put(self, run: Run, size: int) -> Any:
        """Run the script ``put``.

        Raises:
            RedisError, OSError: as redis-py raises them.
        """
        loop = asyncio.get_running_loop()
        reply = loop.create_future()
        self._waiting.append(_Put(run, size, reply))
        if self._task is None or self._task.done():
            # It begins when all calls that are ready now have come here.
            self._task = loop.create_task(self._send())
        return await reply

    async def _send(self) -> None:
        batch: list[_Put] = []
        try:
            while batch := self._next():
                try:
                    replies = await self._run([each.run for each in batch])
                except (RedisError, OSError) as error:
                    replies = [error] * len(batch)
                for each, reply in zip(batch, replies, strict=True):
                    if each.reply.done():
                        continue
                    if isinstance(reply, BaseException):
                        each.reply.set_exception(reply)
                    else:
                        each.reply.set_result(reply)
        finally:
            # Where this task was cancelled, with its event loop.
            for each in (*batch, *self._waiting):
                each.reply.cancel()

    def _next(self) -> list[_Put]:
        """Return the puts of the next pipeline; those that nobody waits for are left out."""
        batch: list[_Put] = []
        size = 0
        while self._waiting and len(batch) < _COUNT:
            size += self._waiting[0].size
            if batch and size > _BYTES:
                break
            put = self._waiting.popleft()
            if not put.reply.done():
                batch.append(put)
        return batch

    async def _run(self, runs: Sequence[Run]) -> list[Any]:
        if len(runs) > 1:
            return await self._scripts.run_many("put", runs)
        return [await self._scripts.run("put", *runs[0])]


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
