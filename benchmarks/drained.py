"""A drain with results from lanes on Redis servers of their own, and the CPU that it took."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from celery_stargate import produce_task
from tests.servers.redis import RedisServer

from .app import Config
from .bounded import bounded, tell
from .machine import describe_machine
from .payload import PAYLOAD
from .readme import replace_block
from .site import Site

__all__ = ["Drained", "command", "measure"]

_PAGE = Path(__file__).parents[1] / "docs" / "redis.md"
_TIME = 1200


class Drained:
    """Lanes on some servers, the workers that drain them, and what they came to in each round.

    Arguments:
        site: of Pulsar, the results, and the workers.
        name: of what is measured.
        servers: that hold the lanes.
        config: that names the servers.
        workers: how many.
        topic: as ``benchmarks/app.py`` names it.
    """

    def __init__(
        self,
        site: Site,
        name: str,
        servers: Sequence[RedisServer],
        config: Config,
        workers: int,
        *,
        topic: str = "many-lanes",
    ) -> None:
        self._topic = topic
        self.name = name
        self._site = site
        self._servers = servers
        self._config = config.below(name.replace(" ", "-"))
        # They begin together, and share the lanes.
        self._workers = [
            site.worker(f"{name}-{number}".replace(" ", "-"), "-P", "solo", config=self._config)
            for number in range(workers)
        ]
        self.rates: list[float] = []
        #: Microseconds of CPU for each message: of the busiest server, of all workers, and of all
        #: that runs on the machine.
        self.server_cpu: list[float] = []
        self.worker_cpu: list[float] = []
        self.machine_cpu: list[float] = []

    def run(self, count: int) -> float:
        """Drain so many messages, and return how many a second."""
        with self._site.caller(self._config) as app, ExitStack() as awake:
            produce = app.tasks[produce_task.name]
            results = self._site.results(self._workers[0], app)

            def call(number: int) -> str:
                return str(produce.delay((f"key-{number}", PAYLOAD), topic=self._topic).id)

            for worker in self._workers:
                awake.enter_context(worker.awake())
            results.wait([call(number) for number in range(200)])
            for worker in self._workers:
                worker.pause()
            ids = [call(number) for number in range(count)]
            servers, workers = self._cpu()
            machine = _busy_seconds()
            began = time.perf_counter()
            for worker in self._workers:
                worker.resume()
            results.wait(ids)
            seconds = time.perf_counter() - began
            servers_after, workers_after = self._cpu()
            self.machine_cpu.append((_busy_seconds() - machine) / count * 1e6)
            results.require_success()
        busiest = max(after - before for before, after in zip(servers, servers_after, strict=True))
        self.server_cpu.append(busiest / count * 1e6)
        self.worker_cpu.append((workers_after - workers) / count * 1e6)
        return count / seconds

    def forget(self) -> None:
        """Take the runs so far for warming up."""
        for found in (self.rates, self.server_cpu, self.worker_cpu, self.machine_cpu):
            found.clear()

    def row(self, first: Drained) -> str:
        """Return its row of a table; the ratios to the first are those within a round."""
        ratios = [rate / base for rate, base in zip(self.rates, first.rates, strict=True)]
        return (
            f"| {self.name} | {median(self.rates):,.0f} | {median(ratios):.2f} "
            f"({min(ratios):.2f} … {max(ratios):.2f}) | {median(self.server_cpu):.0f} | "
            f"{median(self.worker_cpu):.0f} |"
        )

    def _cpu(self) -> tuple[list[float], float]:
        servers = [_seconds(server.process.pid or 0) for server in self._servers]
        return servers, sum(_seconds(worker.pid) for worker in self._workers)


def command(
    name: str,
    about: str | None,
    start: Callable[[Site, ExitStack], Sequence[Drained]],
    keep: Callable[[Sequence[Drained]], None] | None = None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a command that measures some of them side by side, and prints or writes the table.

    Arguments:
        name: of the module, and of the block in docs/redis.md.
        about: its help.
        start: starts the servers, which the stack ends, and the workers.
        keep: with ``--write``, what else is done with the figures.
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=4000, help="messages of a drain (4000)")
    parser.add_argument("--write", action="store_true", help="write the table to docs/redis.md")
    options = parser.parse_args(arguments)
    machine = ", ".join(describe_machine().values())
    with ExitStack() as running, bounded(_TIME):
        tell("starting servers and workers")
        drained = start(running.enter_context(Site()), running)
        table = measure(drained, options.rounds, options.count)
    told = (
        f"{table}\n\nMeasured {datetime.now(UTC):%Y-%m-%d} by `python -m benchmarks.{name}`, "
        f"{options.rounds} rounds of {options.count:,} messages: {machine}."
    )
    print(told)
    if options.write:
        _PAGE.write_text(replace_block(_PAGE.read_text("utf-8"), told, name), "utf-8")
        if keep is not None:
            keep(drained)
    return 0


def measure(all_of_them: Sequence[Drained], rounds: int, count: int) -> str:
    """Drain each in each round, beginning with another one, and return the table."""
    for each in all_of_them:
        each.run(count // 10)
        each.forget()
    for number in range(rounds):
        first = number % len(all_of_them)
        for each in (*all_of_them[first:], *all_of_them[:first]):
            each.rates.append(each.run(count))
            tell(f"round {number + 1}: {each.name}: {each.rates[-1]:,.0f}/s")
    lines = [
        "| Lanes on | A second | Of the first (lowest … highest) | CPU of Redis, µs | of workers |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(each.row(all_of_them[0]) for each in all_of_them)])


def _busy_seconds() -> float:
    """Return the seconds of CPU that all processes and the kernel have had."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    # user, nice, system, idle, iowait, irq, softirq: see proc(5).
    return (sum(fields[:3]) + sum(fields[5:7])) / os.sysconf("SC_CLK_TCK")


def _seconds(pid: int) -> float:
    """Return the seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
