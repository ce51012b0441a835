"""Where rivals meet: the servers, the workers, and what they leave behind."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from celery import Celery
from redis import Redis

from tests.servers.admin import AdminError, PulsarAdmin
from tests.servers.process import ServerProcess
from tests.servers.pulsar import PulsarServer
from tests.servers.redis import RedisServer

from .app import CONFIG_VARIABLE, READY_VARIABLE, Config, make_app
from .stopwatch import Stopwatch

__all__ = ["BenchmarkError", "Site", "Worker"]

_ROOT = Path(__file__).parents[1]
_START_TIMEOUT = 60.0
#: How long one wait may take; what is measured takes a few seconds.
_WAIT_TIMEOUT = 30.0
#: How often a wait looks; the error of what is measured is below it.
_LOOK_EVERY = 0.005


def _nothing() -> None:
    """Do nothing."""


def _pid_of(process: ServerProcess | None) -> int:
    pid = None if process is None else process.pid
    if pid is None:
        raise BenchmarkError("a server that was just started does not run")
    return pid


class BenchmarkError(RuntimeError):
    """A rival did not do what it should; no figure is better than a wrong one."""


class Worker:
    """A Celery worker that runs only while it is awake.

    Asleep it is stopped (SIGSTOP) with its pool: it keeps its connections and takes no CPU.
    """

    def __init__(self, name: str, process: ServerProcess, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log
        #: How much of the log was read, and how many successes were in it.
        self._read = self._successes = 0

    @contextmanager
    def awake(self) -> Iterator[Self]:
        """Let it run for a while."""
        self._process.resume()
        try:
            yield self
        finally:
            self._process.pause()

    def pause(self) -> None:
        """Stop it where it is."""
        self._process.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._process.resume()

    def require_alive(self) -> None:
        """Raise where it died.

        Raises:
            BenchmarkError: it did; the end of its log is in the text.
        """
        if not self._process.alive:
            raise BenchmarkError(f"worker {self.name} ended:\n{self._process.log_tail()}")

    @property
    def pid(self) -> int:
        """Its main process, in which the acknowledger runs."""
        pid = self._process.pid
        if pid is None:
            raise BenchmarkError(f"worker {self.name} ended:\n{self._process.log_tail()}")
        return pid

    def log_tail(self) -> str:
        return self._process.log_tail()

    def successes(self) -> int:
        """Return how many successes its log tells until now; none below INFO."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            whole = log.read().rpartition(b"\n")[0]
        self._read += len(whole)
        self._successes += whole.count(b"] succeeded in ")
        return self._successes


class Results:
    """Waits for results to be stored, by looking for their keys."""

    def __init__(self, site: Site, worker: Worker, app: Celery) -> None:
        self._site = site
        self._worker = worker
        self._backend: Any = app.backend
        self._keys: list[bytes] = []
        self._expected = 0
        #: What counts how many of the tasks somebody was told of, from this moment on.
        self._told: list[Callable[[], int]] = []

    def also(self, count: Callable[[], int]) -> None:
        """Wait also until something is told of each task.

        Arguments:
            count: returns of how many it was told until now.
        """
        before = count()
        self._told.append(lambda: count() - before)

    def wait(self, ids: Sequence[str]) -> None:
        """Wait until the results of these tasks are stored.

        It asks for the last ones first: while they are missing, one question is enough.

        Raises:
            BenchmarkError: they were not within the bounds, or the worker died.
        """
        missing = [self._backend.get_key_for_task(each) for each in ids]
        self._keys += missing

        def all_there() -> bool:
            while missing:
                last = missing[-100:]
                if self._site.redis.exists(*last) < len(last):
                    return False
                del missing[-100:]
            return True

        self._site.wait_until(self._worker, all_there)
        self._expected += len(ids)
        self._site.wait_until(
            self._worker, lambda: all(count() >= self._expected for count in self._told)
        )

    def require_success(self) -> None:
        """See that all tasks that were waited for succeeded, and remove their results.

        Raises:
            BenchmarkError: one did not.
        """
        for start in range(0, len(self._keys), 1000):
            keys = self._keys[start : start + 1000]
            for stored in self._site.redis.mget(keys):
                result = json.loads(stored)
                if result["status"] != "SUCCESS":
                    raise BenchmarkError(f"a task ended as {result['status']}: {result['result']}")
            self._site.redis.unlink(*keys)
        self._keys.clear()


class Site:
    """The servers and workers of one run; a context manager that ends them all.

    Arguments:
        environ: where ``STARGATE_TEST_…`` variables name running servers, these are used;
            else a Pulsar and a Redis are started.

    Attributes:
        folder: for data and logs.
        servers: the process ids of "Redis" and "Pulsar", as far as they were started here.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._running = ExitStack()
        self._workers: dict[str, Worker] = {}
        self.servers: dict[str, int] = {}
        self._begins: Callable[[], None] = _nothing
        self._ends: Callable[[], None] = _nothing

    @property
    def workers(self) -> Sequence[Worker]:
        """All workers and bare owners that were started until now."""
        return list(self._workers.values())

    def stopwatch(self) -> Stopwatch:
        """Return the clock for what is measured of a rival."""
        return Stopwatch(self._begins, self._ends)

    @contextmanager
    def told(self, begins: Callable[[], None], ends: Callable[[], None]) -> Iterator[None]:
        """Tell where the clocks of rivals start and end.

        Arguments:
            begins, ends: what the stopwatches of a while call.
        """
        self._begins, self._ends = begins, ends
        try:
            yield
        finally:
            self._begins = self._ends = _nothing

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running.close()

    def _start(self) -> None:
        folder = self._running.enter_context(tempfile.TemporaryDirectory(prefix="stargate-bench-"))
        self.folder = Path(folder)
        redis_url = self._environ.get("STARGATE_TEST_REDIS_URL")
        if not redis_url:
            server = self._running.enter_context(
                RedisServer(self.folder / "redis", appendonly=True)
            )
            redis_url = server.url
            self.servers["Redis"] = _pid_of(server.process)
        pulsar_url = self._environ.get("STARGATE_TEST_PULSAR_URL")
        service_url = self._environ.get("STARGATE_TEST_PULSAR_SERVICE_URL")
        self.http_url = self._environ.get("STARGATE_TEST_PULSAR_HTTP_URL", "")
        if not (pulsar_url and service_url and self.http_url):
            broker = PulsarServer(self.folder / "pulsar", optimized=True)
            broker.start()
            # Nobody needs its data afterwards, and a clean stop takes it seven seconds.
            self._running.callback(broker.kill)
            self.servers["Pulsar"] = _pid_of(broker.process)
            pulsar_url, service_url = broker.url, broker.service_url
            self.http_url = broker.http_url
        self.config = Config(redis_url, pulsar_url, service_url, f"bench-{uuid.uuid4().hex[:12]}-")
        self.redis = self._running.enter_context(Redis.from_url(redis_url))
        # Last in, first out: the workers end before what they used is removed.
        self._running.callback(self._remove_topics)
        self._running.callback(self.remove_keys, self.config.prefix)

    def worker(self, name: str, *options: str, config: Config | None = None) -> Worker:
        """Return the worker of a name, asleep; it is started when it is first asked for.

        Arguments:
            options: of ``celery worker``. Its queue has its name.
            config: of a world of its own.

        Raises:
            tests.servers.ServerError: it did not start.
        """
        command = ["celery", "-A", "benchmarks.worker_app", "worker"]
        command += ["-n", f"{self.config.prefix}{name}@%h", "-Q", name, "-l", "WARNING", *options]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return self._program(name, command, config)

    def bare_owner(self, name: str, *options: str) -> Worker:
        """Return the owner of the bare log of a name, asleep, as :meth:`worker` does.

        Arguments:
            options: of ``benchmarks.bare_owner``.

        Raises:
            tests.servers.ServerError: it did not start.
        """
        return self._program(name, ["benchmarks.bare_owner", name, *options], None)

    def _program(self, name: str, module: Sequence[str], config: Config | None) -> Worker:
        """Return the program of a name, asleep; it is started when it is first asked for."""
        if name in self._workers:
            return self._workers[name]
        ready = self.folder / f"{name}.ready"
        command = [sys.executable, "-m", *module]
        environ = {
            **self._environ,
            CONFIG_VARIABLE: (config or self.config).to_json(),
            READY_VARIABLE: str(ready),
            "PYTHONPATH": str(_ROOT),
        }
        log = self.folder / f"{name}.log"
        process = ServerProcess(f"program {name}", command, log_path=log, env=environ, cwd=_ROOT)
        self._running.callback(process.kill)
        process.start(ready.exists, timeout=_START_TIMEOUT)
        worker = self._workers[name] = Worker(name, process, log)
        worker.pause()
        return worker

    @contextmanager
    def caller(self, config: Config | None = None) -> Iterator[Celery]:
        """Make an app for one measurement, with connections of its own."""
        app = make_app(config or self.config)
        try:
            yield app
        finally:
            # Each call subscribed to its result's channel; this ends with its connection.
            backend: Any = app.backend
            backend.result_consumer.stop()
            backend.client.connection_pool.disconnect()
            app.close()

    def results(self, worker: Worker, app: Celery) -> Results:
        """Return what waits for the results of a worker."""
        return Results(self, worker, app)

    def messages_in(self, topic: str) -> int:
        """Return how many messages Pulsar has stored in a topic, unbatched ones."""
        try:
            stats = PulsarAdmin(self.http_url).internal_stats(topic)
        except AdminError as error:
            if error.status == 404:  # nobody has sent to it yet
                return 0
            raise
        return int(stats["entriesAddedCounter"])

    def wait_until(self, worker: Worker, done: Callable[[], bool]) -> None:
        """Wait for what a worker does.

        Raises:
            BenchmarkError: it did not do it within the bounds, or died.
        """
        end = time.monotonic() + _WAIT_TIMEOUT
        while not done():
            worker.require_alive()
            if time.monotonic() > end:
                raise BenchmarkError(
                    f"worker {worker.name} was not done in {_WAIT_TIMEOUT:g} s:\n"
                    f"{worker.log_tail()}"
                )
            time.sleep(_LOOK_EVERY)

    def remove_keys(self, prefix: str) -> None:
        """Remove all that begins so from Redis."""
        batch: list[bytes] = []
        for key in self.redis.scan_iter(f"{prefix}*", count=1000):
            batch.append(key)
            if len(batch) == 1000:
                self.redis.unlink(*batch)
                batch.clear()
        if batch:
            self.redis.unlink(*batch)

    def _remove_topics(self) -> None:
        admin = PulsarAdmin(self.http_url)
        for topic in admin.topics("public/default"):
            if self.config.prefix in topic:
                try:
                    admin.delete(topic)
                except AdminError as error:
                    print(f"topic {topic} stays: {error}", file=sys.stderr)
