"""Where the time goes: `python -m benchmarks.profile`. See the README beside this."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery
from redis import Redis

from celery_stargate import Acknowledger, Stargate, produce_task
from tests.servers.redis import RedisServer

from .app import CALLBACKS_QUEUE, Config, make_app
from .bounded import bounded, end_on_sigterm, tell
from .figures import spread
from .machine import describe_machine
from .pages import RESULTS, save, write_pages
from .payload import PAYLOAD
from .profile_figures import Part, Profile, Thread, render_profile
from .rivals.bulk import Settling
from .sampler import Sampler
from .site import BenchmarkError, Site

_MESSAGES, _QUICK_MESSAGES = 4000, 400
_ROUNDS, _QUICK_ROUNDS = 3, 1
#: Seconds for all of it.
_BOUND = 240
#: A part with less than this share of its thread is told with the rest.
_LEAST = 0.03


class _Found:
    """What the rounds found of one thread."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.micros: list[float] = []
        self.parts: dict[str, list[float]] = {}

    def add(self, sampler: Sampler, messages: int) -> None:
        self.micros.append(1e6 * sampler.seconds / messages)
        for name, micros in sampler.micros(messages).items():
            self.parts.setdefault(name, []).append(micros)

    def thread(self, name: str) -> Thread:
        rounds = len(self.micros)
        means = {part: sum(each) / rounds for part, each in self.parts.items()}
        least = _LEAST * sum(self.micros) / rounds
        parts = [Part(part, micros) for part, micros in means.items() if micros >= least]
        parts.sort(key=lambda part: -part.micros)
        rest = sum(means.values()) - sum(part.micros for part in parts)
        if rest > 0.5:
            parts.append(Part("less than 3 % each", rest))
        return Thread(name, self.title, spread(self.micros), tuple(parts))


class _Work:
    """One app on a Redis of its own, its callers and its acknowledger all in this process."""

    def __init__(self, site: Site, server: RedisServer, messages: int) -> None:
        config = site.config
        self._config = Config(server.url, config.pulsar_url, config.service_url, config.prefix)
        self._messages = messages
        self._client = Redis.from_url(server.url)
        self.found: dict[str, _Found] = {}

    def round(self) -> None:
        """Look at each way of a message once."""
        self._way("results", "with results", lambda app: app.tasks[produce_task.name].delay)
        self._way("silent", "`ignore_result`", lambda app: app.tasks["bench.produce_silent"].delay)
        self._way("on-ack", "`on_ack`", _calls_with_on_ack, effects=True)
        self._way("many", "`produce_many`", None)

    def _way(
        self,
        name: str,
        words: str,
        calls: Callable[[Celery], Any] | None,
        *,
        effects: bool = False,
    ) -> None:
        app = make_app(self._config)
        stargate = Stargate.of(app)
        # A survey that finds no worker would start an owner while the caller is looked at.
        vars(stargate.runtime)["require_owner"] = lambda: None
        settling = Settling(self._client, app, None)

        def put(count: int) -> None:
            if calls is None:
                alert = app.signature("bench.on_ack", queue=CALLBACKS_QUEUE)
                stargate.produce_many([PAYLOAD] * count, on_error=alert)
                return
            call = calls(app)
            kept = [call(PAYLOAD) for _ in range(count)]
            # Results unsubscribe when they go; that is Celery's, and each caller's.
            kept.clear()

        put(20)
        redis_before = self._redis_seconds()
        with Sampler(threading.get_ident()) as caller:
            put(self._messages)
        self._redis(f"redis-put-{name}", f"Redis, put, {words}", redis_before)
        self._add(f"caller-{name}", f"caller, {words}", caller)
        redis_before = self._redis_seconds()
        acknowledger = Acknowledger(app)
        with acknowledger:
            loop = self._thread("stargate")
            with Sampler(loop) as loops:
                if effects:
                    # One waits for the other's first batch, so both have begun soon.
                    with (
                        Sampler(self._thread("stargate-callbacks")) as callbacks,
                        Sampler(self._thread("stargate-results")) as results,
                    ):
                        self._wait(settling)
                    self._add(f"callbacks-{name}", f"worker's callbacks, {words}", callbacks)
                    self._add(f"results-{name}", f"worker's results, {words}", results)
                else:
                    # All that follows the receipts is done in the step that settles.
                    self._wait(settling)
        settling.require_success()
        self._add(f"loop-{name}", f"worker's loop, {words}", loops)
        self._redis(f"redis-drain-{name}", f"Redis, drain, {words}", redis_before)
        stargate.close()
        app.close()

    def _add(self, name: str, title: str, sampler: Sampler) -> None:
        self.found.setdefault(name, _Found(title)).add(sampler, self._messages)

    def _redis(self, name: str, title: str, before: float) -> None:
        spent = self._redis_seconds() - before
        self.found.setdefault(name, _Found(title)).micros.append(1e6 * spent / self._messages)

    def _redis_seconds(self) -> float:
        cpu = self._client.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    @staticmethod
    def _thread(name: str) -> int:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for thread in threading.enumerate():
                if thread.name == name and thread.ident is not None:
                    return thread.ident
            time.sleep(0.001)
        raise BenchmarkError(f"no thread {name}")

    @staticmethod
    def _wait(settling: Settling) -> None:
        end = time.monotonic() + 60
        while not settling.done():
            if time.monotonic() > end:
                raise BenchmarkError("it was not drained in 60 s")
            time.sleep(0.02)


def _calls_with_on_ack(app: Celery) -> Callable[[str], Any]:
    # A queue of their own: in the other one is what failed.
    on_ack = app.signature("bench.on_ack", queue="profile-on-ack")
    return partial(app.tasks[produce_task.name].delay, on_ack=on_ack)


def measure(*, quick: bool, now: datetime) -> Profile:
    """Start what is needed, look, and end it all."""
    machine = describe_machine()
    messages = _QUICK_MESSAGES if quick else _MESSAGES
    with ExitStack() as running, bounded(_BOUND):
        folder = Path(
            running.enter_context(tempfile.TemporaryDirectory(prefix="stargate-profile-"))
        )
        site = running.enter_context(Site())
        server = running.enter_context(RedisServer(folder / "redis"))
        work = _Work(site, server, messages)
        for number in range(_QUICK_ROUNDS if quick else _ROUNDS):
            tell(f"round {number + 1}")
            work.round()
    threads = tuple(found.thread(name) for name, found in work.found.items())
    return Profile(now.isoformat(timespec="seconds"), machine, messages, threads)


def main(arguments: list[str] | None = None) -> int:
    """Look, print the table, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--output", type=Path, help="the folder that gets the JSON (results)")
    parser.add_argument("--write-docs", action="store_true", help="write the table into the page")
    options = parser.parse_args(arguments)
    if options.quick and options.write_docs:
        parser.error("--write-docs needs a whole run")
    found = measure(quick=options.quick, now=datetime.now(UTC))
    print(render_profile(found))
    if options.output is not None or not options.quick:
        save("profile", found, options.output or RESULTS)
    if options.write_docs:
        write_pages()
    return 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
