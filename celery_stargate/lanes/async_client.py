"""The client for event loops: each call ends in bounded time, and outlives a failover."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import redis.asyncio
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from celery_stargate.lanes.async_tls import ReadsFilesAgain
from celery_stargate.lanes.packing import COMMAND_PACKER
from celery_stargate.lanes.passing import Epoch, note_reason, passing, unavailable
from celery_stargate.lanes.sentinels import MasterWatch
from celery_stargate.support.bound import USUAL

__all__ = [
    "AsyncSentinelConnection",
    "AsyncSentinelSSLConnection",
    "BoundedAsyncRedis",
    "one_retry",
    "packing",
]

#: Seconds for a whole call, including connecting and retries.
CALL_TIMEOUT = USUAL
#: Seconds before a call is repeated to a server that cannot serve now: at first, and at most.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.5


def one_retry() -> Retry:
    """Return redis-py's policy that repeats a call once; the lane's owner repeats it further."""
    return Retry(ExponentialBackoff(cap=0.5, base=0.05), 1)


class _SameEpoch:
    """A connection to the master that the sentinels name now.

    Arguments:
        epoch: of the process; a connection of an earlier one connects again.
        options: of redis-py's connection.
    """

    def __init__(self, *, epoch: Epoch, **options: Any) -> None:
        self._epoch = epoch
        self._made_in = epoch.number
        super().__init__(**options)

    async def connect(self) -> None:
        """Connect, or go on with a connection of this epoch."""
        number = self._epoch.number
        if self._made_in != number:
            await self.disconnect()  # type: ignore[attr-defined]
        await super().connect()  # type: ignore[misc]
        self._made_in = number


class AsyncSentinelConnection(_SameEpoch, SentinelManagedConnection):
    """Over TCP."""


class AsyncSentinelSSLConnection(_SameEpoch, ReadsFilesAgain, SentinelManagedSSLConnection):
    """Over TLS."""


class BoundedAsyncRedis(redis.asyncio.Redis):
    """Bounds each call as a whole.

    With ``socket_timeout`` redis-py bounds each read and write of a call, with a task and timers
    that cost half as much as the call itself.
    """

    _leaving: _Leaving

    def join(self, epoch: Epoch, watch: MasterWatch | None) -> None:
        """Leave connections of earlier epochs than that of the process; to be called once.

        Arguments:
            epoch: of the process.
            watch: is told of each call; None without Sentinel.
        """
        self._leaving = _Leaving(self.connection_pool, epoch, watch)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run a command.

        Raises:
            RedisError, OSError: as redis-py raises them; what does not pass within the bound is a
                ConnectionError.
        """
        run, leaving, began = super().execute_command, self._leaving, time.monotonic()
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                if leaving.is_due:
                    await leaving.leave()
                return await run(*args, **options)  # type: ignore[no-untyped-call]
        except TimeoutError:
            raise _no_answer() from None
        except RedisError as error:
            if not passing(error):
                raise
            failed = error
        left = began + CALL_TIMEOUT - time.monotonic()
        return await leaving.again(lambda: run(*args, **options), failed, left)  # type: ignore[no-untyped-call]

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections, also those to the sentinels."""
        await super().aclose(close_connection_pool)
        manager = getattr(self.connection_pool, "sentinel_manager", None)
        for each in manager.sentinels if manager is not None else ():
            await each.aclose()

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline that is bounded as a whole."""
        made = _BoundedPipeline(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )
        made.leaving = self._leaving
        return made


class _BoundedPipeline(Pipeline):
    """A pipeline of such a client."""

    leaving: _Leaving

    async def execute(self, raise_on_error: bool = True) -> Any:
        """Run the commands; an answer by which the server cannot serve now fails all of them."""
        run, leaving, stack = super().execute, self.leaving, self.command_stack
        began = time.monotonic()

        async def attempt() -> Any:
            # redis-py forgets the commands after each try.
            self.command_stack = stack
            replies = await run(raise_on_error)
            for reply in replies:
                if isinstance(reply, RedisError) and passing(reply):
                    raise reply
            return replies

        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                if leaving.is_due:
                    await leaving.leave()
                return await attempt()
        except TimeoutError:
            raise _no_answer() from None
        except RedisError as error:
            if not passing(error):
                raise
            failed = error
        return await leaving.again(attempt, failed, began + CALL_TIMEOUT - time.monotonic())


class _Leaving:
    """Leaves the connections of earlier epochs."""

    def __init__(self, pool: Any, epoch: Epoch, watch: MasterWatch | None) -> None:
        self._pool = pool
        self._epoch = epoch
        self._watch = watch
        self._seen = epoch.number

    @property
    def is_due(self) -> bool:
        """Whether an epoch has ended, here or in another client of the process."""
        if self._watch is not None:
            self._watch.touch()
        return self._seen != self._epoch.number

    async def leave(self) -> None:
        """Close the free connections; one in use meets the error itself, or belongs to Sentinel."""
        self._seen = self._epoch.number
        await self._pool.disconnect(inuse_connections=False)

    async def again(
        self, run: Callable[[], Awaitable[Any]], error: RedisError, seconds: float
    ) -> Any:
        """Run a call again, on new connections, until its server can serve.

        Arguments:
            run: runs the call.
            error: by which the server could not.
            seconds: to try for.

        Raises:
            RedisError, OSError: of the call; a ConnectionError if it did not pass in time.
        """
        wait = _FIRST_WAIT
        try:
            async with asyncio.timeout(seconds):
                while True:
                    note_reason(unavailable(error))
                    self._epoch.leave(self._seen)
                    await self.leave()
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, _LONGEST_WAIT)
                    try:
                        return await run()
                    except RedisError as again:
                        if not passing(again):
                            raise
                        error = again
        except TimeoutError:
            raise unavailable(error) from error


def _no_answer() -> RedisError:
    return redis.exceptions.TimeoutError(f"no answer within {CALL_TIMEOUT:g} s")


@cache
def packing(connection: type[Any]) -> type[Any]:
    """Return a class of connections that pack commands with hiredis, where it is installed.

    redis-py does so for its sync connections; its asyncio ones pack in Python, ten times slower.
    """
    if COMMAND_PACKER is None:
        return connection
    pack = COMMAND_PACKER.pack

    class Packing(connection):  # type: ignore[misc]
        def pack_command(self, *args: Any) -> Any:
            return pack(*args)

    return Packing
