"""What shards of a Cluster carry: `python -m benchmarks.shards`. About four minutes.

A drain with results of keyed messages over 24 lanes, whose Redis is a Cluster of one, two or three
masters, by one worker or two. All are measured in one run, in rounds, side by side. They share the
cores of one machine, so the table also shows the CPU of each message: that of the busiest shard,
and that of all workers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from tests.servers.cluster import ClusterServers

from .bounded import bounded, end_on_sigterm, tell
from .drained import Drained, measure
from .site import Site

_TIME = 1200
SHARDS = (1, 2, 3)
WORKERS = (1, 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=4000, help="messages of a drain (4000)")
    options = parser.parse_args(arguments)
    with ExitStack() as running, bounded(_TIME):
        tell("starting servers and workers")
        site = running.enter_context(Site())
        drained = []
        for shards in SHARDS:
            servers = running.enter_context(
                ClusterServers(site.folder / f"cluster-{shards}", masters=shards, replicas=0)
            )
            config = replace(site.config, lanes_url=servers.url)
            drained += [
                Drained(site, f"shards {shards} workers {workers}", servers.nodes, config, workers)
                for workers in WORKERS
            ]
        print(measure(drained, options.rounds, options.count))
    return 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
