"""Whether a second worker costs more: `python -m benchmarks.workers`. About two minutes.

A drain with results from four lanes, by one worker and by two. On a machine whose cores
the servers share, workers cannot add to the rate; but the CPU of a message must stay the same, and
then they scale where there are cores. So the last line compares that: the aim is at most 1.1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from statistics import median

from tests.servers.redis import RedisServer

from .bounded import bounded, end_on_sigterm, tell
from .drained import Drained, measure
from .site import Site

_TIME = 600
WORKERS = (1, 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=8000, help="messages of a drain (8000)")
    options = parser.parse_args(arguments)
    with ExitStack() as running, bounded(_TIME):
        tell("starting servers and workers")
        site = running.enter_context(Site())
        server = running.enter_context(RedisServer(site.folder / "redis-workers"))
        config = replace(site.config, lanes_url=server.url)
        drained = [
            Drained(site, f"workers {count}", [server], config, count, topic="lanes-4")
            for count in WORKERS
        ]
        print(measure(drained, options.rounds, options.count))
        print(f"\nCPU of a message, of the workers and Redis, of one worker's: {_ratios(drained)}.")
    return 0


def _ratios(drained: Sequence[Drained]) -> str:
    """Return what a message costs by more workers, round by round, as a part of the first's."""
    base, *others = [
        [sum(pair) for pair in zip(each.worker_cpu, each.server_cpu, strict=True)]
        for each in drained
    ]
    words = []
    for each, spent in zip(drained[1:], others, strict=True):
        ratios = [more / one for more, one in zip(spent, base, strict=True)]
        words.append(f"{each.name} {median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})")
    return ", ".join(words)


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
