"""As people run it: the worker logs at INFO, and calls come from tasks, chains, groups and chords.

Each world has a worker of its own, because a lane has one owner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from celery import Celery, chord, group

from benchmarks.app import CALLBACKS_QUEUE, Config
from benchmarks.payload import PAYLOAD
from benchmarks.runner import Rival
from benchmarks.site import Results, Site, Worker
from celery_stargate import produce_task

from .celery_task import NoopTask
from .drain import drain
from .events import EventCount
from .lane import LaneChain, LaneOnAck, LaneResults

__all__ = ["AS_RUN"]

_POOL = ("-P", "prefork", "-c", "2", "-l", "INFO")
#: How many tasks the header of a chord, or a group, has.
_MANY = 100


class _Logged(Rival):
    """Until the worker's log tells each success, too."""

    _worker: Worker

    def results(self, app: Celery) -> Results:
        """Return what waits for the results of the calls, and for the log."""
        made = self.site.results(self._worker, app)
        made.also(self._worker.successes)
        return made


class _Heard(_Logged):
    """Until the events of each success came, too; somebody hears them, as Flower does."""

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._events = EventCount(site)

    def teardown(self) -> None:
        self._events.close()

    def results(self, app: Celery) -> Results:
        """Return what waits for the results of the calls, for the log and for the events."""
        made = super().results(app)
        made.also(self._events.successes)
        return made


class _NoopInfo(_Logged, NoopTask):
    group = "as-run"
    name = "noop-info"
    title = "a task that does nothing, log at INFO (no Pulsar)"
    worker = "noop-info"
    count = 600
    options = _POOL


class _NoopEvents(_Heard, NoopTask):
    group = "as-run-events"
    name = "noop-events"
    title = "a task that does nothing, log at INFO, task events (no Pulsar)"
    worker = "noop-events"
    count = 600
    options = (*_POOL, "-E")


class _World:
    """Mixed into a rival: lanes of its own, and a worker that owns them."""

    site: Site
    group: ClassVar[str] = "as-run"
    world: ClassVar[str] = "info"
    options: ClassVar[tuple[str, ...]] = _POOL

    def start(self, site: Site) -> Worker:
        """Return the worker that owns the lanes."""
        name = f"lane-{self.world}"
        return site.worker(name, *self.options, config=self.config)

    @property
    def config(self) -> Config:
        """The world of the worker and the calls."""
        return self.site.config.below(self.world)


class _Warning(_World, LaneResults):
    name = "lane-warning"
    title = "`produce_task`, with results, log at WARNING"
    world = "warning"
    options = (*_POOL[:-1], "WARNING")


class _Info(_World, _Logged, LaneResults):
    name = "lane-info"
    title = "**`produce_task`**, with results"


class _InfoOnAck(_World, _Logged, LaneOnAck):
    name = "lane-info-on-ack"
    title = "**`produce_task`**, with results and `on_ack` on each"


class _InfoChain(_World, _Logged, LaneChain):
    name = "lane-info-chain"
    title = "**`produce_task`**, first of a chain of two"


class _Events(_World, _Heard, LaneResults):
    group = "as-run-events"
    name = "lane-events"
    title = "**`produce_task`**, with results"
    world = "events"
    options = (*_POOL, "-E")


class _InfoGroup(_World, _Logged, LaneResults):
    """As in a task of a worker: each result is stored with its group and its parent."""

    name = "lane-info-group"
    title = "**`produce_task`**, with results, in groups of 100 that a task calls"

    def run(self, count: int) -> float:
        with self.site.caller(self.config) as app:
            produce = app.tasks[produce_task.name]
            results = self.results(app)

            @app.task(name="bench.fan_out", shared=False)
            def fan_out() -> list[str]:
                """Call a group, as a task does whose request names it."""
                called: Any = group([produce.s(PAYLOAD)] * _MANY, app=app).apply_async()
                return [each.id for each in called.results]

            def calls() -> Iterator[str]:
                while True:
                    called: Any = fan_out.apply()
                    yield from called.result

            made = calls()
            seconds = drain(self.site, self._worker, lambda: next(made), count, results.wait, _MANY)
            results.require_success()
            return seconds


class _Chords(Rival):
    """Until the bodies are published; nobody runs them. Tasks of the headers are counted."""

    count = 600

    @property
    def config(self) -> Config:
        """The world of the worker and the calls."""
        return self.site.config

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._worker = self.start(site)

    def start(self, site: Site) -> Worker:
        """Return the worker."""
        raise NotImplementedError

    def header(self, app: Celery) -> Any:
        """Return the signature of which the header is made."""
        raise NotImplementedError

    def run(self, count: int) -> float:
        site, worker = self.site, self._worker
        chords, expected = max(1, count // _MANY), 0
        queue = f"{self.config.prefix}{CALLBACKS_QUEUE}"
        with site.caller(self.config) as app:
            body = app.signature("bench.on_ack", queue=CALLBACKS_QUEUE)
            header = [self.header(app)] * _MANY

            def call() -> str:
                called: Any = chord(header, app=app)(body)
                return str(called.id)

            def wait(ids: Sequence[str]) -> None:
                nonlocal expected
                expected += len(ids)
                site.wait_until(worker, lambda: site.redis.llen(queue) >= expected)

            seconds = drain(self.site, worker, call, chords, wait, 1)
        site.redis.delete(queue)
        # As if it had been just as many as were asked for.
        return seconds * count / (chords * _MANY)


class _NoopChord(_Chords):
    group = "as-run-chord"
    name = "noop-chord"
    title = "chords of 100 tasks that do nothing, log at INFO (no Pulsar)"

    def start(self, site: Site) -> Worker:
        return site.worker(_NoopInfo.worker, *_POOL, "--without-stargate")

    def header(self, app: Celery) -> Any:
        return app.signature("bench.noop", (PAYLOAD,), queue=_NoopInfo.worker)


class _InfoChord(_World, _Chords):
    group = "as-run-chord"
    name = "lane-chord"
    title = "**`produce_task`**, chords of 100"

    def header(self, app: Celery) -> Any:
        return app.tasks[produce_task.name].s(PAYLOAD)


#: In the order of the tables.
AS_RUN: Sequence[type[Rival]] = (
    _NoopInfo,
    _Info,
    _Warning,
    _InfoGroup,
    _InfoOnAck,
    _InfoChain,
    _NoopEvents,
    _Events,
    _NoopChord,
    _InfoChord,
)
