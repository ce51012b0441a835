"""Produce tasks, drained from their lane by one worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery, chain

from benchmarks.app import CALLBACKS_QUEUE, Config
from benchmarks.payload import PAYLOAD
from benchmarks.runner import Rival
from benchmarks.site import BenchmarkError, Results, Site, Worker
from celery_stargate import produce_task
from celery_stargate.lanes.lane import Lane

from .drain import WARM_UP, drain

__all__ = ["LaneChain", "LaneLists", "LaneOnAck", "LaneResults", "LaneSilent", "lane_worker"]


_LIST = 100


def lane_worker(site: Site) -> Worker:
    """Return the worker of all that goes through the lane."""
    return site.worker("lane", "-P", "prefork", "-c", "2")


class _Lane(Rival):
    group = "drain"

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._worker = self.start(site)

    def start(self, site: Site) -> Worker:
        """Return the worker that owns the lane."""
        return lane_worker(site)

    def results(self, app: Celery) -> Results:
        """Return what waits for the results of the calls."""
        return self.site.results(self._worker, app)

    @property
    def config(self) -> Config:
        """The world of the worker and the calls."""
        return self.site.config


class LaneResults(_Lane):
    """Until the last result is stored, as for the tasks of the pool."""

    name = "lane-results"
    title = "**`produce_task`**, with results"
    count = 4000

    def run(self, count: int) -> float:
        with self.site.caller(self.config) as app:
            produce = app.tasks[produce_task.name]
            results = self.results(app)
            seconds = drain(
                self.site, self._worker, lambda: str(produce.delay(PAYLOAD).id), count, results.wait
            )
            results.require_success()
            return seconds


class LaneLists(_Lane):
    """Lists of 100: one task and one result for each list; messages are counted."""

    name = "lane-lists"
    title = "**`produce_task`**, with results, lists of 100"
    count = 10_000

    def run(self, count: int) -> float:
        lists = max(1, count // _LIST)
        with self.site.caller(self.config) as app:
            produce = app.tasks[produce_task.name]
            results = self.results(app)
            messages = [PAYLOAD] * _LIST
            seconds = drain(
                self.site,
                self._worker,
                lambda: str(produce.delay(messages).id),
                lists,
                results.wait,
            )
            results.require_success()
            # As if it had been just as many as were asked for.
            return seconds * count / (lists * _LIST)


class LaneSilent(_Lane):
    """Until the last context is finished; no result says so."""

    name = "lane-silent"
    title = "**`produce_task`**, `ignore_result`"
    count = 4000

    def run(self, count: int) -> float:
        site, worker = self.site, self._worker
        with self.site.caller(self.config) as app:
            produce = app.tasks["bench.produce_silent"]
            topic, contexts = str(app.conf.stargate_topic), _contexts_key(app)

            def wait(ids: Sequence[str]) -> None:
                site.wait_until(worker, lambda: not site.redis.exists(contexts))

            before = site.messages_in(topic)
            seconds = drain(self.site, worker, lambda: str(produce.delay(PAYLOAD).id), count, wait)
            stored = site.messages_in(topic) - before
        if stored != count + WARM_UP:
            raise BenchmarkError(f"Pulsar has {stored} messages of {count + WARM_UP}")
        return seconds


class _LaneAndThen(_Lane):
    """Until what follows the last message is published; no worker runs it."""

    count = 1500

    def call(self, app: Celery, after: Any) -> str:
        """Call once, and return the produce task's id."""
        raise NotImplementedError

    def run(self, count: int) -> float:
        site, worker = self.site, self._worker
        queue = f"{self.config.prefix}{CALLBACKS_QUEUE}"
        with self.site.caller(self.config) as app:
            after = app.signature("bench.on_ack", queue=CALLBACKS_QUEUE)
            results = self.results(app)
            expected = 0

            def wait(ids: Sequence[str]) -> None:
                nonlocal expected
                expected += len(ids)
                site.wait_until(worker, lambda: site.redis.llen(queue) >= expected)
                results.wait(ids)

            seconds = drain(self.site, worker, lambda: self.call(app, after), count, wait)
            results.require_success()
        site.redis.delete(queue)
        return seconds


class LaneOnAck(_LaneAndThen):
    """The callback gets the receipt."""

    name = "lane-on-ack"
    title = "**`produce_task`**, with results and `on_ack` on each"

    def call(self, app: Celery, after: Any) -> str:
        return str(app.tasks[produce_task.name].delay(PAYLOAD, on_ack=after).id)


class LaneChain(_LaneAndThen):
    """The next task of the chain gets the receipt."""

    name = "lane-chain"
    title = "**`produce_task`**, first of a chain of two"

    def call(self, app: Celery, after: Any) -> str:
        produce = app.tasks[produce_task.name]
        last: Any = chain(produce.s(PAYLOAD), after).apply_async()
        return str(last.parent.id)


def _contexts_key(app: Celery) -> str:
    lane = Lane(str(app.conf.stargate_topic))
    return lane.key(str(app.conf.stargate_prefix), "contexts")
