"""Round trips: the next one begins when the last one ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from celery_stargate import produce_task

from ..payload import PAYLOAD
from ..runner import Rival
from ..site import Site
from .lane import lane_worker
from .raw import connect, frame, require_receipt

__all__ = ["LaneGet", "NoopGet", "WebSocketRoundTrip"]

_TIMEOUT = 30.0


class NoopGet(Rival):
    """By Celery's broker, a process of the pool, and Celery's results."""

    group = "one"
    name = "noop-get"
    title = "a task that does nothing: `delay().get()` (no Pulsar)"
    count = 300

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._worker = site.worker("noop", "-P", "prefork", "-c", "2", "--without-stargate")

    def run(self, count: int) -> float:
        with self._worker.awake(), self.site.caller() as app:
            signature = app.signature("bench.noop", (PAYLOAD,), queue="noop")
            return _time_gets(lambda: signature.apply_async().get(timeout=_TIMEOUT), count)


class LaneGet(Rival):
    """By a lane, Pulsar, and Celery's results."""

    group = "one"
    name = "lane-get"
    title = "**`produce_task.delay().get()`**"
    count = 300

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._worker = lane_worker(site)

    def run(self, count: int) -> float:
        with self._worker.awake(), self.site.caller() as app:
            produce = app.tasks[produce_task.name]
            return _time_gets(lambda: produce.delay(PAYLOAD).get(timeout=_TIMEOUT), count)


def _time_gets(get: Callable[[], object], count: int) -> float:
    for _ in range(20):
        get()
    began = time.perf_counter()
    for _ in range(count):
        get()
    return time.perf_counter() - began


class WebSocketRoundTrip(Rival):
    """Pulsar's own part of it."""

    group = "one"
    name = "websocket-round-trip"
    title = "a bare WebSocket round trip (no Celery, no Redis)"
    count = 300

    def run(self, count: int) -> float:
        return asyncio.run(self._run(count))

    async def _run(self, count: int) -> float:
        async with connect(self.site.config, "raw") as socket:
            for number in range(-20, count):
                if number == 0:
                    began = time.perf_counter()
                await socket.send(frame(str(number)), text=True)
                require_receipt(await socket.recv(decode=False))
            return time.perf_counter() - began
