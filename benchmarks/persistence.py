"""What Redis' persistence costs: `python -m benchmarks.persistence`. About two minutes.

A drain with results, whose lanes are on a Redis without an append-only file, with one that is
synced every second, and with one that is synced at each write. All are measured in one run, in
rounds, side by side; the results are on another Redis, the same for all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from tests.servers.redis import RedisServer

from .bounded import end_on_sigterm
from .drained import Drained, command
from .site import Site

#: By name: ``appendonly``, and ``appendfsync``.
_LEVELS = {"no file": (False, "no"), "everysec": (True, "everysec"), "always": (True, "always")}


def start(site: Site, running: ExitStack) -> Sequence[Drained]:
    """Start a Redis for each level, and its worker."""
    drained = []
    for name, (appendonly, fsync) in _LEVELS.items():
        server = running.enter_context(
            RedisServer(site.folder / fsync, appendonly=appendonly, config={"appendfsync": fsync})
        )
        config = replace(site.config, lanes_url=server.url)
        drained.append(Drained(site, name, [server], config, workers=1))
    return drained


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(command("persistence", __doc__, start))
