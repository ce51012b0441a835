"""What the link itself can do: no Celery, no Redis, nothing durable before the send."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from ..payload import PAYLOAD
from ..runner import Rival
from ..site import BenchmarkError, Site
from .raw import connect, frame, require_receipt

__all__ = ["BareSendAsync", "BareWebSocket"]

IN_FLIGHT = 1000
_TIMEOUT = 60.0


class BareWebSocket(Rival):
    """One task sends, another reads the receipts."""

    group = "bare"
    name = "bare-websocket"
    title = "`websockets`, a bare loop"
    count = 10_000

    def run(self, count: int) -> float:
        return asyncio.run(asyncio.wait_for(self._run(count), _TIMEOUT))

    async def _run(self, count: int) -> float:
        room = asyncio.Semaphore(IN_FLIGHT)
        async with connect(self.site.config, "raw") as socket:

            async def send() -> None:
                for number in range(count):
                    await room.acquire()
                    await socket.send(frame(str(number)), text=True)

            async def receive() -> set[str]:
                contexts = set()
                for _ in range(count):
                    contexts.add(require_receipt(await socket.recv(decode=False)))
                    room.release()
                return contexts

            began = time.perf_counter()
            _, contexts = await asyncio.gather(send(), receive())
            seconds = time.perf_counter() - began
        if len(contexts) != count:
            raise BenchmarkError(f"{len(contexts)} of {count} messages have a receipt")
        return seconds


class BareSendAsync(Rival):
    """pulsar-client with a callback for each receipt."""

    group = "bare"
    name = "bare-send-async"
    title = "`pulsar-client`'s `send_async`, a bare loop"
    count = 10_000
    needs = ("pulsar",)

    def setup(self, site: Site) -> None:
        super().setup(site)
        import pulsar

        self._ok = pulsar.Result.Ok
        self._client = pulsar.Client(
            site.config.service_url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error)
        )
        self._producer = self._client.create_producer(
            site.config.topic("native"), max_pending_messages=IN_FLIGHT
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

        payload = PAYLOAD.encode()
        began = time.perf_counter()
        for _ in range(count):
            room.acquire()
            self._producer.send_async(payload, on_receipt)
        if not done.wait(_TIMEOUT):
            raise BenchmarkError(f"{receipts} of {count} messages have a receipt")
        seconds = time.perf_counter() - began
        if failed:
            raise BenchmarkError(f"pulsar-client: {failed[0]}")
        return seconds

    def teardown(self) -> None:
        self._client.close()
