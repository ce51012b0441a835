"""What shards of a Cluster carry: `python -m benchmarks.shards`. About four minutes.

A drain with results of keyed messages over 24 lanes, whose Redis is a Cluster of one, two or three
masters, by one worker or two. All are measured in one run, in rounds, side by side. They share the
cores of one machine, so the table also shows the CPU of each message: that of the busiest shard,
and that of all workers. `--write` also corrects the model of docs/performance.md by them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

from tests.servers.cluster import ClusterServers

from .bounded import end_on_sigterm
from .drained import Drained, command
from .figures import spread
from .pages import save, write_pages
from .shard_figures import Drain, ShardFigures
from .site import Site

_SHARDS = (1, 2, 3)
_WORKERS = (1, 2)
#: Of the topic that ``benchmarks/app.py`` calls ``many-lanes``.
_LANES = 24


def start(site: Site, running: ExitStack) -> Sequence[Drained]:
    """Start a Cluster for each number of shards, and its workers."""
    drained = []
    for shards in _SHARDS:
        servers = running.enter_context(
            ClusterServers(site.folder / f"cluster-{shards}", masters=shards, replicas=0)
        )
        config = replace(site.config, lanes_url=servers.url)
        drained += [
            Drained(site, f"shards {shards} workers {workers}", servers.nodes, config, workers)
            for workers in _WORKERS
        ]
    return drained


def keep(drained: Sequence[Drained]) -> None:
    """Save the figures, and write the model's table anew."""
    sizes = [(shards, workers) for shards in _SHARDS for workers in _WORKERS]
    drains = [
        Drain(
            shards,
            workers,
            spread(each.rates),
            spread(each.server_cpu),
            spread(each.worker_cpu),
            spread(each.machine_cpu),
        )
        for (shards, workers), each in zip(sizes, drained, strict=True)
    ]
    date = datetime.now(UTC).isoformat(timespec="seconds")
    save("shards", ShardFigures(date, len(os.sched_getaffinity(0)), _LANES, tuple(drains)))
    write_pages()


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(command("shards", __doc__, start, keep))
