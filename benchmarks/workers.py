"""Whether a second worker costs more: `python -m benchmarks.workers`. About a minute.

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
from datetime import UTC, datetime

from tests.servers.redis import RedisServer

from .bounded import bounded, end_on_sigterm, tell
from .drained import Drained, measure
from .figures import Spread, spread
from .machine import describe_machine
from .pages import RESULTS, save
from .site import Site
from .table import spread_text
from .workers_figures import Workers

_TIME = 600
WORKERS = (1, 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and keep what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=8000, help="messages of a drain (8000)")
    parser.add_argument("--quick", action="store_true", help="one short round; writes nothing")
    options = parser.parse_args(arguments)
    rounds, count = (1, 400) if options.quick else (options.rounds, options.count)
    date, machine = datetime.now(UTC).isoformat(timespec="seconds"), describe_machine()
    with ExitStack() as running, bounded(_TIME):
        tell("starting servers and workers")
        site = running.enter_context(Site())
        server = running.enter_context(RedisServer(site.folder / "redis-workers"))
        config = replace(site.config, lanes_url=server.url)
        drained = [
            Drained(site, f"workers {workers}", [server], config, workers, topic="lanes-4")
            for workers in WORKERS
        ]
        print(measure(drained, rounds, count))
    ratio = _ratio(*drained)
    words = spread_text(ratio, lambda value: f"{value:.2f}")
    print(f"\nCPU of a message, of the workers and Redis, of one worker's: {words}.")
    if not options.quick:
        save("workers", Workers(date, machine, ratio), RESULTS)
    return 0


def _ratio(one: Drained, two: Drained) -> Spread:
    """Return what a message costs with two workers, round by round, as a part of one's."""
    spent = [
        [sum(pair) for pair in zip(each.worker_cpu, each.server_cpu, strict=True)]
        for each in (one, two)
    ]
    return spread([more / less for less, more in zip(*spent, strict=True)])


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
