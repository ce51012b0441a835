"""What shards of a Cluster carry: `python -m benchmarks.shards`. About four minutes.

A drain with results of keyed messages over 24 lanes, whose Redis is a Cluster of one, two or three
masters, by one worker or two. All are measured in one run, in rounds, side by side. They share the
cores of one machine, so the table also shows the CPU of each message: that of the busiest shard,
and that of all workers.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from celery_stargate import produce_task
from tests.servers.cluster import ClusterServers

from .app import Config
from .bounded import bounded, end_on_sigterm, tell
from .payload import PAYLOAD
from .site import Site

_TIME = 1200
SHARDS = (1, 2, 3)
WORKERS = (1, 2)


class World:
    """So many shards and workers, and what they came to in each round.

    Arguments:
        site: of Pulsar, the results, and the workers.
        servers: of the lanes.
        config: that names the servers.
        shards: how many they are.
        workers: how many.
    """

    def __init__(
        self, site: Site, servers: ClusterServers, config: Config, shards: int, workers: int
    ) -> None:
        self.shards = shards
        self.workers = workers
        name = f"shards{shards}-workers{workers}"
        self._site = site
        self._servers = servers
        self._config = config.below(name)
        # Two begin together, and share the lanes.
        self._workers = [
            site.worker(f"{name}-{number}", "-P", "solo", config=self._config)
            for number in range(workers)
        ]
        self.rates: list[float] = []
        #: Microseconds of CPU for each message: of the busiest shard, and of all workers.
        self.shard_cpu: list[float] = []
        self.worker_cpu: list[float] = []

    def run(self, count: int) -> float:
        """Drain so many messages, and return how many a second."""
        with self._site.caller(self._config) as app, ExitStack() as awake:
            produce = app.tasks[produce_task.name]
            results = self._site.results(self._workers[0], app)

            def call(number: int) -> str:
                return str(produce.delay((f"key-{number}", PAYLOAD), topic="shards").id)

            for worker in self._workers:
                awake.enter_context(worker.awake())
            results.wait([call(number) for number in range(200)])
            for worker in self._workers:
                worker.pause()
            ids = [call(number) for number in range(count)]
            shards, workers = self._cpu()
            began = time.perf_counter()
            for worker in self._workers:
                worker.resume()
            results.wait(ids)
            seconds = time.perf_counter() - began
            shards_after, workers_after = self._cpu()
            results.require_success()
        busiest = max(after - before for before, after in zip(shards, shards_after, strict=True))
        self.shard_cpu.append(busiest / count * 1e6)
        self.worker_cpu.append((workers_after - workers) / count * 1e6)
        return count / seconds

    def _cpu(self) -> tuple[list[float], float]:
        shards = [cpu_seconds(node.process.pid or 0) for node in self._servers.nodes]
        return shards, sum(cpu_seconds(worker.pid) for worker in self._workers)


def cpu_seconds(pid: int) -> float:
    """Return the seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=4000, help="messages of a drain (4000)")
    options = parser.parse_args(arguments)
    with ExitStack() as running, bounded(_TIME):
        tell("starting servers and workers")
        site = running.enter_context(Site())
        worlds = []
        for shards in SHARDS:
            servers = running.enter_context(
                ClusterServers(site.folder / f"cluster-{shards}", masters=shards, replicas=0)
            )
            config = replace(site.config, lanes_url=servers.url)
            worlds += [World(site, servers, config, shards, workers) for workers in WORKERS]
        for world in worlds:
            world.run(options.count // 10)
            world.shard_cpu.clear()
            world.worker_cpu.clear()
        for number in range(options.rounds):
            first = number % len(worlds)
            for world in (*worlds[first:], *worlds[:first]):
                world.rates.append(world.run(options.count))
                tell(
                    f"round {number + 1}: {world.shards} shards, {world.workers} workers: "
                    f"{world.rates[-1]:,.0f}/s"
                )
    print(table(worlds))
    return 0


def table(worlds: Sequence[World]) -> str:
    """Return the table of what was measured; the ratios are those within a round."""
    lines = [
        "| Shards | Workers | A second | Of 1, 1 (lowest … highest) | CPU, µs: shard | workers |",
        "|---|---|---|---|---|---|",
    ]
    first = worlds[0].rates
    for world in worlds:
        ratios = [rate / base for rate, base in zip(world.rates, first, strict=True)]
        lines.append(
            f"| {world.shards} | {world.workers} | {median(world.rates):,.0f} | "
            f"{median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f}) | "
            f"{median(world.shard_cpu):.0f} | {median(world.worker_cpu):.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
