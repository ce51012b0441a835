"""Which process spends the CPU of a message: `python -m benchmarks.shares`. About three minutes.

For each target that is hard to reach: what ours is compared with, ours, and the floor, in turns on
the same servers. The CPU of a process is that of its own clock while the rival is measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from .bounded import bounded, end_on_sigterm, tell
from .figures import Laps, spread
from .machine import describe_machine
from .pages import RESULTS, save
from .rivals import RIVALS
from .runner import Rival
from .shares_figures import PARTS, Row, Share, Shares, render_shares
from .site import Site

__all__ = ["ROWS"]

_TIME = 900
#: Of each target: its words, how often what the first one takes a message may take, and the names
#: of what ours is compared with, ours, and the floor.
ROWS: Sequence[tuple[str, float, tuple[str, str, str]]] = (
    ("`on_ack` on each", 1 / 4, ("noop-info", "lane-info-on-ack", "floor-on-ack")),
    ("Chords of 100", 1 / 3, ("noop-chord", "lane-chord", "floor-chord")),
    (
        "In bulk, batched",
        1 / 0.9,
        ("bare-send-async-batched", "bulk-many-batched", "floor-batched"),
    ),
    ("100 kB each", 1 / 0.8, ("bare-websocket-100000", "many-100000", "floor-100000")),
    (
        "`produce_many` that waits, 100 B each",
        1 / 0.8,
        ("bare-websocket", "bulk-many-waits", "floor-waits"),
    ),
    *(
        (
            f"`produce_many` that waits, {size // 1000} kB each",
            1 / 0.8,
            (f"bare-websocket-{size}", f"many-waits-{size}", f"floor-waits-{size}"),
        )
        for size in (10_000, 100_000, 500_000)
    ),
    ("200 concurrent `aproduce`", 1 / 5, ("produce-threads", "aproduce-loop", "floor-loop")),
    ("`stargate.produce`", 1.5, ("websocket-round-trip", "produce-waits", "floor-round-trip")),
    ("`aproduce`", 1.5, ("websocket-round-trip", "aproduce-waits", "floor-round-trip")),
)


class _Measured:
    """A rival, and what its rounds took.

    Arguments:
        rival: set up.
        site: where it is.
    """

    def __init__(self, rival: Rival, site: Site) -> None:
        self._rival = rival
        self._site = site
        self._took: list[float] = []
        self._cpu: list[tuple[float, ...]] = []

    def run(self, share: float) -> None:
        """Do a share of its operations, and keep what each took."""
        count = max(1, round(self._rival.count * share))
        clocks: list[tuple[float, ...]] = []

        def look() -> None:
            clocks.append(self._spent())

        with self._site.told(begins=look, ends=look):
            took = self._rival.run(count)
        began, ended = clocks
        self._took.append(1e6 * (took.seconds if isinstance(took, Laps) else took) / count)
        spent = zip(began, ended, strict=True)
        self._cpu.append(tuple(1e6 * (after - before) / count for before, after in spent))

    def forget(self) -> None:
        """Take the runs so far for warming up."""
        self._took.clear()
        self._cpu.clear()

    def share(self) -> Share:
        """Return what it came to."""
        cpu = tuple(spread(each) for each in zip(*self._cpu, strict=True))
        return Share(self._rival.name, self._rival.title, tuple(self._took), cpu)

    def _spent(self) -> tuple[float, ...]:
        """Return the seconds of CPU of each part until now."""
        workers = [pid for each in self._site.workers for pid in _family(each.pid)]
        spent = {
            "caller": time.process_time(),
            "worker": sum(map(_seconds, workers)),
            **{name: _seconds(pid) for name, pid in self._site.servers.items()},
        }
        return tuple(spent[part] for part in PARTS)


def _seconds(pid: int) -> float:
    """Return the seconds of CPU that a process has had, more exactly than /proc has them."""
    # The process's clock as clock_getcpuclockid(3) names it, which Python does not have.
    return time.clock_gettime(~pid << 3 | 2)


def _family(pid: int) -> list[int]:
    """Return a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def measure(*, rounds: int, share: float, only: str, now: datetime) -> Shares:
    """Start what is needed, look, and end it all.

    Arguments:
        share: of the rivals' counts.
        only: the rows whose words hold this.
    """
    machine = describe_machine()
    rows = [row for row in ROWS if only in row[0]]
    kinds = {kind.name: kind for kind in RIVALS}
    # The servers of others are not looked into.
    environ = {name: text for name, text in os.environ.items() if "STARGATE_TEST_" not in name}
    measured: dict[str, _Measured] = {}
    with ExitStack() as running, bounded(_TIME):
        tell("starting servers and workers")
        site = running.enter_context(Site(environ))
        for name in dict.fromkeys(name for _, _, names in rows for name in names):
            rival = kinds[name]()
            rival.setup(site)
            running.callback(rival.teardown)
            measured[name] = _Measured(rival, site)
        order = list(measured.values())
        for each in order:
            # A whole round: Pulsar's JVM compiles meanwhile, and takes CPU for it.
            each.run(share)
            each.forget()
        for number in range(rounds):
            first = number % len(order)
            for each in (*order[first:], *order[:first]):
                each.run(share)
            tell(f"round {number + 1} of {rounds}")
    made = {name: each.share() for name, each in measured.items()}
    return Shares(
        now.isoformat(timespec="seconds"),
        machine,
        os.cpu_count() or 1,
        rounds,
        tuple(Row(words, aim, tuple(made[name] for name in names)) for words, aim, names in rows),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and keep what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shares", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each rival runs (5)")
    parser.add_argument("--quick", action="store_true", help="one short round; writes nothing")
    parser.add_argument("--only", default="", help="the rows that hold this; writes nothing")
    options = parser.parse_args(arguments)
    found = measure(
        rounds=1 if options.quick else options.rounds,
        share=0.2 if options.quick else 1.0,
        only=options.only,
        now=datetime.now(UTC),
    )
    print(render_shares(found))
    if not (options.quick or options.only):
        save("shares", found, RESULTS)
    return 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
