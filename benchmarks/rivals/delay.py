"""What a call costs its caller."""

from __future__ import annotations

import time
from typing import ClassVar

from celery_stargate import produce_task

from ..payload import PAYLOAD
from ..runner import Rival

__all__ = ["CeleryDelay", "LaneDelay"]


class _Delay(Rival):
    """Calls into a world of its own, in which no worker lives."""

    group = "delay"
    count = 1500
    task: ClassVar[str]

    def run(self, count: int) -> float:
        config = self.site.config.below(self.name)
        with self.site.caller(config) as app:
            task = app.tasks[self.task]
            for _ in range(20):
                task.delay(PAYLOAD)
            began = time.perf_counter()
            for _ in range(count):
                task.delay(PAYLOAD)
            seconds = time.perf_counter() - began
        self.site.remove_keys(config.prefix)
        return seconds


class CeleryDelay(_Delay):
    """The same call, of a task that goes by the broker."""

    name = "delay-celery"
    title = "Celery's `delay()`, Redis broker"
    task = "bench.noop"


class LaneDelay(_Delay):
    """The message is checked, encoded, and in Redis when it returns."""

    name = "delay-lane"
    title = "**`produce_task.delay()`** into a lane"
    task = produce_task.name
