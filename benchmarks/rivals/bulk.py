"""Many messages, from the first put until each is settled, with a durable context for each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

from celery import Celery
from redis import Redis

from benchmarks.app import CALLBACKS_QUEUE, Config
from benchmarks.payload import PAYLOAD, payload
from benchmarks.runner import Rival
from benchmarks.site import BenchmarkError, Site, Worker
from celery_stargate import Stargate
from celery_stargate.lanes.lane import Lane

from .lane import lane_worker

__all__ = ["BULK", "LANES_RIVALS", "OF_SIZE", "SIZES", "WAITS_OF_SIZE", "Bulk", "Settling"]


class Settling:
    """Tells when nothing is pending in a topic's lanes, and that nothing failed.

    Arguments:
        client: of the Redis that holds the lanes and the callbacks' queue.
    """

    def __init__(self, client: Redis, app: Celery, topic: str | None) -> None:
        parsed, options = Stargate.of(app).settings.resolve(topic)
        prefix = str(app.conf.stargate_prefix)
        self._client = client
        self._keys = [
            Lane(str(parsed), index).key(prefix, "contexts") for index in range(options.lanes)
        ]
        self._failures = f"{app.conf.broker_transport_options['global_keyprefix']}{CALLBACKS_QUEUE}"

    def done(self) -> bool:
        return not self._client.exists(*self._keys)

    def require_success(self) -> None:
        """See that no ``on_error`` was published.

        Raises:
            BenchmarkError: one was.
        """
        failed: Any = self._client.llen(self._failures)
        if failed:
            self._client.delete(self._failures)
            raise BenchmarkError(f"{failed} messages were refused")


class Bulk(Rival):
    """``produce_many``, told of failures only: the worker is awake, and drains meanwhile."""

    topic: ClassVar[str | None] = None
    size: ClassVar[int] = len(PAYLOAD)
    #: Whether the receipts are waited for by the caller, one for each message.
    waits: ClassVar[bool] = False
    #: Whether all is put before the worker is resumed and the clock starts.
    backlog: ClassVar[bool] = False

    def setup(self, site: Site) -> None:
        super().setup(site)
        self._workers = self.workers(site)

    def workers(self, site: Site) -> Sequence[Worker]:
        """Return those that are awake."""
        return [lane_worker(site)]

    def config(self, site: Site) -> Config:
        """Return where they are."""
        return site.config

    def run(self, count: int) -> float:
        with self.site.caller(self.config(self.site)) as app, ExitStack() as awake:
            settling = Settling(self.site.redis, app, self.topic)
            for worker in self._workers:
                awake.enter_context(worker.awake())
            messages = [payload(self.size)] * count
            self.put(app, messages[: min(20, count)])
            self._wait(settling)
            if self.backlog:
                for worker in self._workers:
                    worker.pause()
                self.put(app, messages)
            with self.site.stopwatch() as watch:
                if self.backlog:
                    for worker in self._workers:
                        worker.resume()
                else:
                    self.put(app, messages)
                self._wait(settling)
            settling.require_success()
            Stargate.of(app).close()
            return watch.seconds

    def put(self, app: Celery, messages: list[str]) -> None:
        """Record the messages."""
        stargate = Stargate.of(app)
        if self.waits:
            stargate.produce_many(messages, topic=self.topic)
        else:
            alert = app.signature("bench.on_ack", queue=CALLBACKS_QUEUE)
            stargate.produce_many(messages, topic=self.topic, on_error=alert)

    def _wait(self, settling: Settling) -> None:
        self.site.wait_until(self._workers[0], settling.done)


class BulkMany(Bulk):
    group = "bulk"
    name = "bulk-many"
    title = "**`stargate.produce_many`**, told of failures only"
    count = 30_000


class BulkManyWaits(Bulk):
    group = "bulk"
    name = "bulk-many-waits"
    title = "**`stargate.produce_many`**, which waits for each receipt"
    count = 20_000
    waits = True


class BulkManyBatched(Bulk):
    group = "bulk"
    name = "bulk-many-batched"
    title = "**`stargate.produce_many`**, told of failures only, batched"
    count = 30_000
    topic = "batched"


class BulkLists(Bulk):
    group = "bulk"
    name = "bulk-lists"
    title = "**`produce_task.delay([100 messages])`**, `ignore_result`"
    count = 15_000

    def put(self, app: Celery, messages: list[str]) -> None:
        produce: Any = app.tasks["bench.produce_silent"]
        for start in range(0, len(messages), 100):
            produce.delay(messages[start : start + 100])


class _Lanes(Bulk):
    group = "lanes"
    count = 10_000
    backlog = True


class Lanes1(_Lanes):
    name = "lanes-1"
    title = "1 lane, 1 worker"
    topic = "lanes-1"


class Lanes2(_Lanes):
    name = "lanes-2"
    title = "2 lanes, 1 worker"
    topic = "lanes-2"


class Lanes4(_Lanes):
    name = "lanes-4"
    title = "4 lanes, 1 worker"
    topic = "lanes-4"


class Workers2(_Lanes):
    """A world of its own, in which two workers share the lanes."""

    name = "workers-2"
    title = "4 lanes, 2 workers"
    topic = "lanes-4"

    def config(self, site: Site) -> Config:
        return site.config.below("pair")

    def workers(self, site: Site) -> Sequence[Worker]:
        config = self.config(site)
        options = ("-P", "solo", "--without-gossip")
        return [site.worker(f"pair-{n}", *options, config=config) for n in (1, 2)]


def _of_size(words: str, bytes_: int, operations: int) -> type[Bulk]:
    class BulkOfSize(Bulk):
        group = f"size-{bytes_}"
        name = f"many-{bytes_}"
        title = f"**`stargate.produce_many`**, {words} each"
        count = operations
        size = bytes_

    return BulkOfSize


def _waits_of_size(words: str, bytes_: int, operations: int) -> type[Bulk]:
    class BulkWaitsOfSize(Bulk):
        group = f"size-{bytes_}"
        name = f"many-waits-{bytes_}"
        title = f"**`stargate.produce_many`**, which waits for each receipt, {words} each"
        count = operations
        size = bytes_
        waits = True

    return BulkWaitsOfSize


SIZES = (
    (1000, "1 kB", 12_000),
    (10_000, "10 kB", 4000),
    (100_000, "100 kB", 800),
    (500_000, "500 kB", 150),
)

BULK: Sequence[type[Rival]] = (BulkMany, BulkManyWaits, BulkLists, BulkManyBatched)
LANES_RIVALS: Sequence[type[Rival]] = (Lanes1, Lanes2, Lanes4, Workers2)
OF_SIZE = {size: _of_size(words, size, count) for size, words, count in SIZES}
WAITS_OF_SIZE = {size: _waits_of_size(words, size, count) for size, words, count in SIZES}
