"""Many calls of one process at the same time, each of which waits for its receipt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from benchmarks.payload import PAYLOAD
from benchmarks.runner import Rival
from benchmarks.site import Site
from celery_stargate import Stargate

from .lane import lane_worker

__all__ = ["TOGETHER"]

_TIMEOUT = 30.0


class _Together(Rival):
    group = "together"
    #: How many calls wait at the same time.
    callers: ClassVar[int]

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._worker = lane_worker(site)

    def run(self, count: int) -> float:
        each = max(1, count // self.callers)
        with self._worker.awake(), self.site.caller() as app:
            stargate = Stargate.of(app)
            seconds = self.call(stargate, each)
            stargate.close()
        # As if it had been just as many as were asked for.
        return seconds * count / (each * self.callers)

    def call(self, stargate: Stargate, each: int) -> float:
        """Let each caller call so often, and return how long it took."""
        raise NotImplementedError


class InThreads(_Together):
    """The baseline."""

    name = "produce-threads"
    title = "**`stargate.produce`** in 32 threads"
    count = 3000
    callers = 32

    def call(self, stargate: Stargate, each: int) -> float:
        def produce(number: int) -> None:
            stargate.produce(PAYLOAD, timeout=_TIMEOUT)

        with ThreadPoolExecutor(self.callers) as threads:
            list(threads.map(produce, range(self.callers)))
            with self.site.stopwatch() as watch:
                list(threads.map(produce, range(self.callers * each)))
            return watch.seconds


class InLoop(_Together):
    """In one process, and one thread."""

    name = "aproduce-loop"
    title = "200 concurrent **`await stargate.aproduce`**"
    count = 15_000
    callers = 200

    def call(self, stargate: Stargate, each: int) -> float:
        async def caller(calls: int) -> None:
            for _ in range(calls):
                await stargate.aproduce(PAYLOAD, timeout=_TIMEOUT)

        async def main() -> float:
            await asyncio.gather(*(caller(1) for _ in range(self.callers)))
            with self.site.stopwatch() as watch:
                await asyncio.gather(*(caller(each) for _ in range(self.callers)))
            await stargate.aclose()
            return watch.seconds

        return asyncio.run(main())


TOGETHER: Sequence[type[Rival]] = (InThreads, InLoop)
