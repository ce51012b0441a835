"""What the same guarantees cost at least: bare programs beside the rivals that miss a target.

A caller with redis-py and a process that owns a log (``benchmarks/bare_owner.py``) do what the
promise needs and no more: each message is in Redis before the call returns, is noted as sent before
it is sent, and is settled in one step with its result. Celery alone does what Celery must do.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
from redis.asyncio import Redis as AsyncRedis

from benchmarks.app import CALLBACKS_QUEUE, make_plain_app
from benchmarks.bare_log import BareLog, keys_of
from benchmarks.figures import Laps
from benchmarks.payload import PAYLOAD, payload
from benchmarks.runner import Rival
from benchmarks.site import BenchmarkError, Site

from .bulk import SIZES
from .drain import WARM_UP
from .events import EventCount
from .one_at_a_time import LOAD_PUT, half_load, time_each

__all__ = [
    "FLOORS_AS_RUN",
    "FLOORS_BULK",
    "FLOORS_ONE",
    "FLOORS_TOGETHER",
    "FLOOR_OF_SIZE",
    "FLOOR_WAITS_OF_SIZE",
]

_TIMEOUT = 30.0
_CHORD = 100


class _Floor(Rival):
    """With a log of its own name, or with that of the others."""

    log_name: ClassVar[str] = "bare"
    #: Of its owner.
    options: ClassVar[tuple[str, ...]] = ()

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._owner = site.bare_owner(self.log_name, *self.options)
        self._log = BareLog(site.config, site.redis, self.log_name)

    def wait(self) -> None:
        """Wait until all that was put is settled."""
        self._log.wait_settled(self.site, self._owner)


class _Drain(_Floor):
    """As a lane is drained: all is put while the owner is paused."""

    kind: ClassVar[str] = "r"
    group = "as-run"

    def put(self, count: int) -> None:
        """Put so many messages."""
        self._log.put([PAYLOAD] * count, self.kind)

    def run(self, count: int) -> float:
        with self._owner.awake():
            self.put(WARM_UP)
            self.wait()
            self._owner.pause()
            self.put(count)
            with self.site.stopwatch() as watch:
                self._owner.resume()
                self.wait()
        prefix = self.site.config.prefix
        self.site.remove_keys(f"{prefix}celery-task-meta-")
        self.site.redis.delete(f"{prefix}{CALLBACKS_QUEUE}")
        return watch.seconds


class FloorWarning(_Drain):
    name = "floor-warning"
    title = "a bare owner, with results"
    count = 4000


class FloorInfo(_Drain):
    name = "floor-info"
    title = "a bare owner, with results, and Celery's line in the log"
    count = 4000
    kind = "rl"


class FloorOnAck(_Drain):
    name = "floor-on-ack"
    title = "a bare owner, with results, the line, and Celery's publish of each callback"
    count = 1500
    kind = "rla"


class FloorEvents(_Drain):
    """Somebody hears the events, as for the others."""

    group = "as-run-events"
    name = "floor-events"
    title = "a bare owner, with results, the line, and Celery's events"
    count = 3000
    kind = "rle"

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._events = EventCount(site)
        self._expected = 0

    def teardown(self) -> None:
        self._events.close()

    def put(self, count: int) -> None:
        self._expected = self._events.successes() + count
        super().put(count)

    def wait(self) -> None:
        super().wait()
        self.site.wait_until(self._owner, lambda: self._events.successes() >= self._expected)


class FloorChord(_Drain):
    group = "as-run-chord"
    name = "floor-chord"
    title = "a bare owner, with results, the line, and Celery's count of each header"
    count = 600
    kind = "rlc"

    def run(self, count: int) -> float:
        # As if it had been just as many as were asked for.
        return super().run(count) * count / (max(1, count // _CHORD) * _CHORD)

    def put(self, count: int) -> None:
        backend: Any = make_plain_app(self.site.config).backend
        for _ in range(max(1, count // _CHORD)):
            group = str(uuid.uuid4())
            backend.set_chord_size(group, _CHORD)
            self._log.put([PAYLOAD] * _CHORD, self.kind, group=group)
        backend.client.connection_pool.disconnect()


class FloorRoundTrip(_Floor):
    """Redis twice, one after the other, and Pulsar once."""

    group = "one"
    name = "floor-round-trip"
    title = "a bare log in Redis and its bare owner"
    count = 600

    def run(self, count: int) -> Laps:
        def call() -> None:
            self._log.put([PAYLOAD], "t")
            self._log.receipts(1)

        with self._owner.awake():
            self._log.skip_receipts()
            return time_each(self.site, call, count)


class _LogProducer:
    """Stands where Celery expects a kombu producer, and puts into the log."""

    serializer = None
    recoverable_connection_errors = ()

    def __init__(self, log: BareLog) -> None:
        self._log = log

    @property
    def connection(self) -> _LogProducer:
        return self

    @contextmanager
    def _reraise_as_library_errors(self) -> Iterator[None]:
        yield

    def publish(self, body: Any, headers: Any, **properties: Any) -> None:
        """Put a message, whose result is stored."""
        self._log.put([PAYLOAD], "r", [headers["id"]])


class FloorGet(_Floor):
    """Celery's own call, and Celery's own result."""

    group = "one"
    name = "floor-get"
    title = "Celery's `delay().get()` with a bare log and its bare owner"
    count = 600

    def run(self, count: int) -> Laps:
        with self._owner.awake(), self._calls(count) as measure:
            return measure()

    @contextmanager
    def _calls(self, count: int) -> Iterator[Callable[[], Laps]]:
        app = make_plain_app(self.site.config)
        noop: Any = app.tasks["bench.noop"]
        producer = _LogProducer(self._log)

        def call() -> None:
            noop.apply_async((PAYLOAD,), producer=producer).get(timeout=_TIMEOUT)

        try:
            yield lambda: time_each(self.site, call, count)
        finally:
            backend: Any = app.backend
            backend.result_consumer.stop()
            backend.client.connection_pool.disconnect()
            app.close()


class FloorGetHalfLoad(FloorGet):
    """The same at half of the bare owner's own load."""

    name = "floor-get-half-load"
    title = "Celery's `delay().get()` with a bare log, its bare owner at half its load"
    count = 300

    def run(self, count: int) -> Laps:
        with self._owner.awake(), self._calls(count) as measure:
            return half_load(
                self.site,
                lambda: self._log.put([PAYLOAD] * LOAD_PUT, ""),
                self.wait,
                measure,
                self.log_name,
            )


class FloorLoop(_Floor):
    """One event loop, in which what is put at the same time goes out together."""

    group = "together"
    name = "floor-loop"
    title = "200 concurrent calls of a bare event loop, with a bare log and its bare owner"
    count = 20_000

    def run(self, count: int) -> float:
        each = max(1, count // _CALLERS)
        with self._owner.awake():
            seconds = asyncio.run(_Loop(self.site, self.log_name).run(each))
        # As if it had been just as many as were asked for.
        return seconds * count / (each * _CALLERS)


_CALLERS = 200


class _Loop:
    """Callers of one event loop, each of which waits for its receipt before it calls again."""

    def __init__(self, site: Site, name: str) -> None:
        self._site = site
        self._url = site.config.redis_url
        self._keys = keys_of(site.config, name)
        self._unput: list[str] = []
        self._given = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def run(self, each: int) -> float:
        """Let each call so often, and return how many seconds that took."""
        async with (
            AsyncRedis.from_url(self._url, socket_timeout=None) as redis,
            AsyncRedis.from_url(self._url, socket_timeout=None) as blocking,
        ):
            helpers = [asyncio.ensure_future(self._put(redis))]
            helpers.append(asyncio.ensure_future(self._hear(blocking)))
            try:
                await self._all(1)
                with self._site.stopwatch() as watch:
                    await asyncio.wait_for(self._all(each), _TIMEOUT)
                return watch.seconds
            finally:
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)

    async def _all(self, each: int) -> None:
        await asyncio.gather(*(self._call(each) for _ in range(_CALLERS)))

    async def _call(self, times: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(times):
            name = str(uuid.uuid4())
            future = self._waiting[name] = loop.create_future()
            self._unput.append(name)
            self._given.set()
            await future

    async def _put(self, redis: Any) -> None:
        while True:
            await self._given.wait()
            self._given.clear()
            names, self._unput = self._unput, []
            async with redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.xadd(self._keys[0], {"p": PAYLOAD, "n": name, "k": "t", "g": ""})
                await pipe.execute()

    async def _hear(self, redis: Any) -> None:
        inbox = self._keys[2]
        newest = await redis.xrevrange(inbox, count=1)
        last = newest[0][0] if newest else b"0-0"
        while True:
            for _, entries in await redis.xread({inbox: last}, count=100, block=1000):
                last = entries[-1][0]
                for _, fields in entries:
                    for receipt in msgspec.json.decode(fields[b"outcomes"]):
                        waiting = self._waiting.pop(receipt["context"], None)
                        if waiting is not None:
                            waiting.set_result(None)


class _Bulk(_Floor):
    """From the first put, the owner awake."""

    group = "bulk"
    size: ClassVar[int] = len(PAYLOAD)
    #: Whether the caller waits to be told of each receipt.
    waits: ClassVar[bool] = False

    def run(self, count: int) -> float:
        messages = [payload(self.size)] * count
        with self._owner.awake():
            self._log.put(messages[: min(WARM_UP, count)], "")
            self.wait()
            self._log.skip_receipts()
            with self.site.stopwatch() as watch:
                self._log.put(messages, "t" if self.waits else "")
                if self.waits and (told := self._log.receipts(count)) != count:
                    raise BenchmarkError(f"told of {told} receipts of {count}")
                self.wait()
            return watch.seconds


class FloorWaits(_Bulk):
    name = "floor-waits"
    title = "a bare log and its bare owner, which tells of each receipt"
    count = 20_000
    waits = True


class FloorBatched(_Bulk):
    name = "floor-batched"
    title = "a bare log and its bare owner, batched"
    count = 40_000
    log_name = "bare-batched"
    options = ("--batched",)


def _of_size(words: str, bytes_: int, operations: int, *, waits_for: bool) -> type[_Bulk]:
    class FloorOfSize(_Bulk):
        group = f"size-{bytes_}"
        name = f"floor-waits-{bytes_}" if waits_for else f"floor-{bytes_}"
        title = "a bare log and its bare owner" + (
            f", which tells of each receipt, {words} each" if waits_for else f", {words} each"
        )
        count = operations
        size = bytes_
        waits = waits_for

    return FloorOfSize


FLOOR_OF_SIZE = {
    size: _of_size(words, size, count, waits_for=False) for size, words, count in SIZES
}
FLOOR_WAITS_OF_SIZE = {
    size: _of_size(words, size, count, waits_for=True) for size, words, count in SIZES
}
FLOORS_AS_RUN: Sequence[type[Rival]] = (
    FloorInfo,
    FloorWarning,
    FloorOnAck,
    FloorEvents,
    FloorChord,
)
FLOORS_ONE: Sequence[type[Rival]] = (FloorRoundTrip, FloorGet, FloorGetHalfLoad)
FLOORS_TOGETHER: Sequence[type[Rival]] = (FloorLoop,)
FLOORS_BULK: Sequence[type[Rival]] = (FloorWaits, FloorBatched)
