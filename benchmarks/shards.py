"""What shards of a Cluster carry: `python -m benchmarks.shards`. About four minutes.

A drain with results of keyed messages over 24 lanes, whose Redis is a Cluster of one, two or three
masters, by one worker or two. All are measured in one run, in rounds, side by side. They share the
cores of one machine, so the table also shows the CPU of each message: that of the busiest shard,
and that of all workers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from tests.servers.cluster import ClusterServers

from .bounded import end_on_sigterm
from .drained import Drained, command
from .site import Site

_SHARDS = (1, 2, 3)
_WORKERS = (1, 2)


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


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(command("shards", __doc__, start))
