"""What Redis' persistence costs: `python -m benchmarks.persistence`. About two minutes.

A drain with results, whose lanes are on a Redis without an append-only file, with one that is
synced every second, and with one that is synced at each write. All are measured in one run, in
rounds, side by side; the results are on another Redis, the same for all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from tests.servers.redis import RedisServer

from .bounded import bounded, end_on_sigterm, tell
from .drained import Drained, measure
from .site import Site

_TIME = 900
#: By name: ``appendonly``, and ``appendfsync``.
LEVELS = {"no file": (False, "no"), "everysec": (True, "everysec"), "always": (True, "always")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.persistence", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=4000, help="messages of a drain (4000)")
    options = parser.parse_args(arguments)
    with ExitStack() as running, bounded(_TIME):
        tell("starting servers and workers")
        site = running.enter_context(Site())
        drained = []
        for name, (appendonly, fsync) in LEVELS.items():
            server = running.enter_context(
                RedisServer(
                    site.folder / fsync, appendonly=appendonly, config={"appendfsync": fsync}
                )
            )
            config = replace(site.config, lanes_url=server.url)
            drained.append(Drained(site, name, [server], config, workers=1))
        print(measure(drained, options.rounds, options.count))
    return 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
