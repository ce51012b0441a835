"""Watch the logs of many lanes with one blocking read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from celery_stargate.lanes.connections import UNAVAILABLE, stream_entries
from celery_stargate.lanes.registry import Registry, is_wrong_type
from celery_stargate.lanes.wire import StoredEntry
from celery_stargate.support.backoff import Backoff
from celery_stargate.support.log import logger_of
from celery_stargate.support.seldom import Seldom

__all__ = ["Found", "Watcher"]

logger = logger_of(__name__)

#: How long one read blocks, in milliseconds; below redis-py's socket timeout.
_BLOCK_MS = 2000
#: Seconds for which the next read is delayed so that the lanes of the last one can wait again. A
#: lane that comes back later has to wake the read, which costs more than all else of a single
#: message.
_RETURN = 0.005


class Found(NamedTuple):
    """A lane's log holds a message, or has to be looked at."""

    #: The first one, if the wait brought it.
    entry: StoredEntry | None = None


class Watcher:
    """Wakes the owners of idle lanes when a message is put, and the supervisor for new lanes.

    One ``XREAD`` blocks on the logs of all waiting lanes, on the registry's events, and on a stream
    of this process: a write there ends the read when another lane begins to wait.

    Arguments:
        redis: for writes.
        blocking: a client of its own, for the read that blocks.
        registry: of lanes and workers.
        owner: the name of this process.
        on_event: called when a lane is new or has no owner.
        bucket: whose lanes it watches.
    """

    def __init__(
        self,
        redis: Redis,
        blocking: Redis,
        registry: Registry,
        owner: str,
        on_event: Callable[[], None],
        bucket: int = 0,
    ) -> None:
        self._redis = redis
        self._blocking = blocking
        self._registry = registry
        self._keys = registry.all_keys[bucket]
        self._events_key = self._keys.key("events").encode()
        self._wake_key = self._keys.key(f"wake:{owner}").encode()
        self._on_event = on_event
        self._waiting: dict[bytes, tuple[int, asyncio.Future[StoredEntry | None]]] = {}
        self._reading = False
        #: The lanes that the last read woke and that do not wait again yet.
        self._away: set[bytes] = set()
        self._all_back = asyncio.Event()
        self._log_failure = Seldom()
        #: Whether to log that Redis is away; None while it answers.
        self._log_away: Seldom | None = None
        #: Between reads that fail for another reason than that Redis is away.
        self._backoff = Backoff(0.1, 5.0)

    async def wait(self, log_key: str, after: int, timeout: float) -> Found | None:
        """Wait until a lane's log holds a message after a number; None after ``timeout`` s."""
        key = log_key.encode()
        future: asyncio.Future[StoredEntry | None] = asyncio.get_running_loop().create_future()
        self._waiting[key] = after, future
        self._away.discard(key)
        if not self._away:
            self._all_back.set()
        try:
            if self._reading:
                await self._wake()
            async with asyncio.timeout(timeout):
                return Found(await future)
        except TimeoutError:
            return None
        except (RedisError, OSError):
            # The source finds out by itself that Redis is away; it must not spin meanwhile.
            await asyncio.sleep(0.5)
            return Found()
        finally:
            if self._waiting.get(key, (0, None))[1] is future:
                del self._waiting[key]

    async def run(self) -> None:
        """Watch until cancelled."""
        events: Any = b"$"
        wake: Any = b"0-0"
        while True:
            try:
                if events == b"$":
                    last: Any = await self._redis.xrevrange(self._events_key, count=1)
                    events = last[0][0] if last else b"0-0"
                    self._on_event()
                streams = {key: f"{after}-0".encode() for key, (after, _) in self._waiting.items()}
                streams[self._events_key] = events
                streams[self._wake_key] = wake
                self._reading = True
                try:
                    found: Any = await self._blocking.xread(
                        streams,  # type: ignore[arg-type]
                        count=1,
                        block=_BLOCK_MS,
                    )
                finally:
                    self._reading = False
            except UNAVAILABLE as error:
                self._log_away = self._log_away or Seldom()
                if self._log_away():
                    logger.warning("Redis does not answer; it is tried again: %s", error)
                self._release_all()
                await asyncio.sleep(0.5)
                continue
            except Exception as error:  # noqa: BLE001  # all lanes wait by this read
                events = b"$"
                await self._recover(error)
                continue
            self._backoff.reset()
            self._log_away = None
            self._away.clear()
            for key, entries in stream_entries(found):
                if key == self._events_key:
                    events = entries[-1][0]
                    self._on_event()
                elif key == self._wake_key:
                    wake = entries[-1][0]
                else:
                    self._release(key, entries[0])
                    self._away.add(key)
            if self._away:
                # Those that were woken go first.
                await asyncio.sleep(0)
            if self._away:
                self._all_back.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETURN):
                        await self._all_back.wait()

    async def _recover(self, error: Exception) -> None:
        """After a read that failed: find the keys that are no streams, so that it can be done.

        The owner of such a log is woken, and finds out by itself. If none is found, all are woken.
        """
        if self._log_failure():
            logger.error("waiting for messages failed; it is tried again: %s", error)
        try:
            broken = await self._broken_logs() if is_wrong_type(error) else []
        except (RedisError, OSError) as failed:
            logger.debug("the keys cannot be looked at: %s", failed)
            broken = []
        for key in broken:
            self._release(key)
        if not broken:
            self._release_all()
        await asyncio.sleep(self._backoff.next())

    async def _broken_logs(self) -> list[bytes]:
        """Mend our own keys; return those of waiting lanes that are no streams."""
        await self._registry.heal(self._keys, {self._wake_key.decode(): "stream"})
        keys = list(self._waiting)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.type(key)
            types = await pipeline.execute()
        return [
            key for key, found in zip(keys, types, strict=True) if found not in (b"stream", b"none")
        ]

    async def close(self) -> None:
        """Delete this process's stream."""
        await self._redis.delete(self._wake_key)

    async def _wake(self) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xadd(self._wake_key, {"w": "1"}, maxlen=1, approximate=False)
            pipeline.expire(self._wake_key, 3600)
            await pipeline.execute()

    def _release(self, key: bytes, entry: StoredEntry | None = None) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(entry)

    def _release_all(self) -> None:
        for key in list(self._waiting):
            self._release(key)
