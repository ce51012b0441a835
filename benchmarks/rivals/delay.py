"""What a call costs its caller."""

from __future__ import annotations

from typing import Any, ClassVar

from celery import Celery

from benchmarks.payload import PAYLOAD
from benchmarks.runner import Rival
from celery_stargate import Stargate, produce_task

__all__ = ["CeleryDelay", "LaneDelay", "LaneDelayLists", "ProduceMany"]


class _Delay(Rival):
    """Calls into a world of its own, in which no worker lives."""

    group = "delay"
    count = 1500
    task: ClassVar[str]

    def call(self, app: Celery, count: int) -> None:
        """Call for so many messages."""
        task: Any = app.tasks[self.task]
        for _ in range(count):
            task.delay(PAYLOAD)

    def run(self, count: int) -> float:
        config = self.site.config.below(self.name)
        with self.site.caller(config) as app:
            # Nobody drains here; a survey that finds no worker must start none.
            vars(Stargate.of(app).runtime)["require_owner"] = lambda: None
            self.call(app, 20)
            with self.site.stopwatch() as watch:
                self.call(app, count)
            Stargate.of(app).close()
        self.site.remove_keys(config.prefix)
        return watch.seconds


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


class LaneDelayLists(_Delay):
    """One call for 100 messages."""

    name = "delay-lane-lists"
    title = "**`produce_task.delay()`**, lists of 100, per message"
    task = produce_task.name
    count = 20_000

    def call(self, app: Celery, count: int) -> None:
        task: Any = app.tasks[self.task]
        for start in range(0, count, 100):
            task.delay([PAYLOAD] * min(100, count - start))


class ProduceMany(_Delay):
    """Each message is a context of its own, and all are in Redis when it returns."""

    name = "delay-produce-many"
    title = "**`stargate.produce_many`**, per message"
    count = 20_000

    def call(self, app: Celery, count: int) -> None:
        alert = app.signature("bench.on_ack")
        Stargate.of(app).produce_many([PAYLOAD] * count, on_error=alert)
