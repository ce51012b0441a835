"""What the link itself can do: no Celery, no Redis, nothing durable before the send."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

from benchmarks.payload import PAYLOAD, payload
from benchmarks.runner import Rival
from benchmarks.site import BenchmarkError, Site

from .bulk import SIZES
from .raw import connect, frame, require_receipt

__all__ = [
    "ASYNC_OF_SIZE",
    "WEBSOCKET_OF_SIZE",
    "BareSendAsync",
    "BareSendAsyncBatched",
    "BareWebSocket",
]

IN_FLIGHT = 1000
_TIMEOUT = 60.0


class BareWebSocket(Rival):
    """One task sends, another reads the receipts."""

    group = "bulk"
    name = "bare-websocket"
    title = "`websockets`, a bare loop (nothing durable)"
    count = 40_000
    size: ClassVar[int] = len(PAYLOAD)

    def run(self, count: int) -> float:
        return asyncio.run(asyncio.wait_for(self._run(count), _TIMEOUT))

    async def _run(self, count: int) -> float:
        room, body = asyncio.Semaphore(IN_FLIGHT), payload(self.size)
        async with connect(self.site.config, "raw") as socket:

            async def send() -> None:
                for number in range(count):
                    await room.acquire()
                    await socket.send(frame(str(number), body), text=True)

            async def receive() -> set[str]:
                contexts = set()
                for _ in range(count):
                    contexts.add(require_receipt(await socket.recv(decode=False)))
                    room.release()
                return contexts

            with self.site.stopwatch() as watch:
                _, contexts = await asyncio.gather(send(), receive())
        if len(contexts) != count:
            raise BenchmarkError(f"{len(contexts)} of {count} messages have a receipt")
        return watch.seconds


class BareSendAsync(Rival):
    """pulsar-client with a callback for each receipt."""

    group = "bulk"
    name = "bare-send-async"
    title = "`pulsar-client`'s `send_async`, a bare loop (nothing durable)"
    count = 15_000
    needs = ("pulsar",)
    size: ClassVar[int] = len(PAYLOAD)
    #: Of the producer.
    options: ClassVar[dict[str, Any]] = {}

    def setup(self, site: Site) -> None:
        super().setup(site)
        import pulsar

        self._ok = pulsar.Result.Ok
        self._client = pulsar.Client(
            site.config.service_url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error)
        )
        self._producer = self._client.create_producer(
            site.config.topic(self.name), max_pending_messages=IN_FLIGHT, **self.options
        )

    def run(self, count: int) -> float:
        room = threading.Semaphore(IN_FLIGHT)
        done = threading.Event()
        failed: list[str] = []
        receipts = 0

        def on_receipt(result: Any, message_id: Any) -> None:
            # All of a client's callbacks come from one thread.
            nonlocal receipts
            if result != self._ok:
                failed.append(str(result))
            receipts += 1
            room.release()
            if receipts == count:
                done.set()

        body = payload(self.size).encode()
        with self.site.stopwatch() as watch:
            for _ in range(count):
                room.acquire()
                self._producer.send_async(body, on_receipt)
            if not done.wait(_TIMEOUT):
                raise BenchmarkError(f"{receipts} of {count} messages have a receipt")
        if failed:
            raise BenchmarkError(f"pulsar-client: {failed[0]}")
        return watch.seconds

    def teardown(self) -> None:
        self._client.close()


class BareSendAsyncBatched(BareSendAsync):
    """Many messages in one entry of Pulsar's."""

    name = "bare-send-async-batched"
    title = "`pulsar-client`'s `send_async`, a bare loop, batched (nothing durable)"
    options: ClassVar[dict[str, Any]] = {"batching_enabled": True}


def _of_size(words: str, bytes_: int, operations: int) -> type[BareSendAsync]:
    class BareSendAsyncOfSize(BareSendAsync):
        group = f"size-{bytes_}"
        name = f"bare-send-async-{bytes_}"
        title = f"`pulsar-client`'s `send_async`, a bare loop, {words} each"
        count = operations
        size = bytes_

    return BareSendAsyncOfSize


def _websocket_of_size(words: str, bytes_: int, operations: int) -> type[BareWebSocket]:
    class BareWebSocketOfSize(BareWebSocket):
        group = f"size-{bytes_}"
        name = f"bare-websocket-{bytes_}"
        title = f"`websockets`, a bare loop, {words} each"
        count = operations
        size = bytes_

    return BareWebSocketOfSize


WEBSOCKET_OF_SIZE = {size: _websocket_of_size(words, size, count) for size, words, count in SIZES}
ASYNC_OF_SIZE = {size: _of_size(words, size, count) for size, words, count in SIZES}
