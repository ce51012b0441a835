"""Round trips: the next one begins when the last one ended."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.app import CALLBACKS_QUEUE, CONFIG_VARIABLE
from benchmarks.figures import Laps
from benchmarks.payload import PAYLOAD
from benchmarks.runner import Rival
from benchmarks.site import Site
from celery_stargate import Stargate, produce_task

from .bulk import Settling
from .lane import lane_worker
from .raw import connect, frame, require_receipt

__all__ = [
    "AproduceWaits",
    "LaneGet",
    "LaneGetHalfLoad",
    "NoopGet",
    "ProduceWaits",
    "WebSocketRoundTrip",
    "half_load",
    "time_each",
]

_TIMEOUT = 30.0
_WARM_UP = 20


class NoopGet(Rival):
    """By Celery's broker, a process of the pool, and Celery's results."""

    group = "one"
    name = "noop-get"
    title = "a task that does nothing: `delay().get()` (no Pulsar)"
    count = 600

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._worker = site.worker("noop", "-P", "prefork", "-c", "2", "--without-stargate")

    def run(self, count: int) -> Laps:
        with self._worker.awake(), self.site.caller() as app:
            signature = app.signature("bench.noop", (PAYLOAD,), queue="noop")
            return time_each(
                self.site, lambda: signature.apply_async().get(timeout=_TIMEOUT), count
            )


class LaneGet(Rival):
    """By a lane, Pulsar, and Celery's results."""

    group = "one"
    name = "lane-get"
    title = "**`produce_task.delay().get()`**"
    count = 600

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._worker = lane_worker(site)

    def run(self, count: int) -> Laps:
        with self._worker.awake(), self.site.caller() as app:
            produce = app.tasks[produce_task.name]
            return time_each(self.site, lambda: produce.delay(PAYLOAD).get(timeout=_TIMEOUT), count)


class LaneGetHalfLoad(LaneGet):
    """The same, while another process puts half of what all can carry into the same lane.

    What that is, is measured first: as fast as one process puts such messages (twenty at a time,
    told of failures only), until the last one is settled. For who puts, Redis and Pulsar take the
    same cores.
    """

    name = "lane-get-half-load"
    title = "**`produce_task.delay().get()`**, the worker at half its load"
    count = 300

    def run(self, count: int) -> Laps:
        with self.site.caller() as app, self._worker.awake():
            settling = Settling(self.site.redis, app, None)
            stargate = Stargate.of(app)
            produce = app.tasks[produce_task.name]
            return half_load(
                self.site,
                lambda: put_load(stargate),
                lambda: self.site.wait_until(self._worker, settling.done),
                lambda: time_each(
                    self.site, lambda: produce.delay(PAYLOAD).get(timeout=_TIMEOUT), count
                ),
            )


def half_load(
    site: Site,
    put: Callable[[], object],
    wait: Callable[[], object],
    measure: Callable[[], Laps],
    *options: str,
) -> Laps:
    """Measure the full load, and return what is measured while another process puts half of it.

    Arguments:
        put: puts what the load puts at a time.
        wait: returns when all that was put is settled.
        measure: what is measured under the load.
        options: of ``benchmarks.load``, beside the rate.
    """
    put()
    wait()
    began = time.perf_counter()
    for _ in range(_PUTS):
        put()
    wait()
    seconds = time.perf_counter() - began
    rate = _PUTS * LOAD_PUT / seconds / 2
    command = [sys.executable, "-m", "benchmarks.load", str(rate), *options]
    environ = {**os.environ, CONFIG_VARIABLE: site.config.to_json()}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            laps = measure()
        finally:
            process.terminate()
            process.wait(10)
    wait()
    return laps


#: Messages in each call of the load.
LOAD_PUT = 20
_PUTS = 200


def put_load(stargate: Stargate) -> None:
    """Put what the load puts at a time."""
    alert = stargate.app.signature("bench.on_ack", queue=CALLBACKS_QUEUE)
    stargate.produce_many([PAYLOAD] * LOAD_PUT, on_error=alert)


class ProduceWaits(LaneGet):
    """By a lane and Pulsar, without Celery's results: an inbox in Redis tells the caller."""

    name = "produce-waits"
    title = "**`stargate.produce`**"

    def run(self, count: int) -> Laps:
        with self._worker.awake(), self.site.caller() as app:
            stargate = Stargate.of(app)
            laps = time_each(self.site, lambda: stargate.produce(PAYLOAD, timeout=_TIMEOUT), count)
            stargate.close()
            return laps


class AproduceWaits(LaneGet):
    """The same in an event loop."""

    name = "aproduce-waits"
    title = "**`await stargate.aproduce`**"

    def run(self, count: int) -> Laps:
        with self._worker.awake(), self.site.caller() as app:
            stargate = Stargate.of(app)
            laps = asyncio.run(self._run(stargate, count))
            stargate.close()
            return laps

    async def _run(self, stargate: Stargate, count: int) -> Laps:
        for _ in range(_WARM_UP):
            await stargate.aproduce(PAYLOAD, timeout=_TIMEOUT)
        laps = []
        with self.site.stopwatch():
            for _ in range(count):
                began = time.perf_counter()
                await stargate.aproduce(PAYLOAD, timeout=_TIMEOUT)
                laps.append(time.perf_counter() - began)
        return Laps.of(laps)


def time_each(site: Site, call: Callable[[], object], count: int) -> Laps:
    """Time each of so many calls, after some that do not count."""
    for _ in range(_WARM_UP):
        call()
    laps = []
    with site.stopwatch():
        for _ in range(count):
            began = time.perf_counter()
            call()
            laps.append(time.perf_counter() - began)
    return Laps.of(laps)


class WebSocketRoundTrip(Rival):
    """Pulsar's own part of it."""

    group = "one"
    name = "websocket-round-trip"
    title = "a bare WebSocket round trip (no Celery, no Redis)"
    count = 600

    def run(self, count: int) -> Laps:
        return asyncio.run(self._run(count))

    async def _run(self, count: int) -> Laps:
        async with connect(self.site.config, "raw") as socket:

            async def trip(number: int) -> None:
                await socket.send(frame(str(number)), text=True)
                require_receipt(await socket.recv(decode=False))

            for number in range(_WARM_UP):
                await trip(number)
            laps = []
            with self.site.stopwatch():
                for number in range(count):
                    began = time.perf_counter()
                    await trip(number)
                    laps.append(time.perf_counter() - began)
        return Laps.of(laps)
