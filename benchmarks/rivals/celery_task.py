"""Celery tasks that the pool runs: one that does nothing, and one that uses pulsar-client."""

from __future__ import annotations

from typing import ClassVar

from celery import Celery

from benchmarks.payload import PAYLOAD
from benchmarks.runner import Rival
from benchmarks.site import Results, Site

from .drain import drain

__all__ = ["NativeSendPrefork", "NativeSendThreads", "NoopTask"]


class _PoolTask(Rival):
    """Drained by one worker, results in Redis."""

    group = "drain"
    worker: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ("-P", "prefork", "-c", "2")
    task: ClassVar[str]

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._worker = site.worker(self.worker, *self.options, "--without-stargate")

    def results(self, app: Celery) -> Results:
        """Return what waits for the results of the calls."""
        return self.site.results(self._worker, app)

    def run(self, count: int) -> float:
        with self.site.caller() as app:
            task = app.signature(self.task, (PAYLOAD,), queue=self.worker)
            results = self.results(app)
            seconds = drain(
                self.site, self._worker, lambda: str(task.apply_async().id), count, results.wait
            )
            results.require_success()
            return seconds


class NoopTask(_PoolTask):
    """The most that a pool of two processes can do."""

    name = "noop"
    title = "a task that does nothing, prefork 2 (no Pulsar)"
    count = 1500
    worker = "noop"
    task = "bench.noop"


class NativeSendPrefork(_PoolTask):
    """A task for each message, one message at a time in each process."""

    name = "native-prefork"
    title = "`pulsar-client`'s `send` in a task, prefork 2"
    count = 800
    needs = ("pulsar",)
    worker = "native-prefork"
    task = "bench.native_send"


class NativeSendThreads(_PoolTask):
    """A task for each message, 32 of them at a time."""

    name = "native-threads"
    title = "`pulsar-client`'s `send` in a task, 32 threads"
    count = 800
    needs = ("pulsar",)
    worker = "native-threads"
    options = ("-P", "threads", "-c", "32")
    task = "bench.native_send"
