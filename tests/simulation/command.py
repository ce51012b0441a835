"""The command line of the simulator."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.plan import Focus, Plan
from tests.simulation.world import run

__all__ = ["Tally", "main", "run_seeds"]

_CHUNK = 100
#: After so many seeds that fail, no more are run.
_ENOUGH = 10


@dataclass(slots=True)
class Tally:
    """What came of some seeds."""

    seeds: int = 0
    messages: int = 0
    calls: int = 0
    virtual_seconds: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    #: Seed, and what is wrong.
    failed: list[tuple[int, list[str]]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count another's seeds, too."""
        self.seeds += other.seeds
        self.messages += other.messages
        self.calls += other.calls
        self.virtual_seconds += other.virtual_seconds
        self.struck += other.struck
        self.failed += other.failed


def _run_chunk(seeds: range, focus: Focus | None, enough: int) -> Tally:
    tally = Tally()
    for seed in seeds:
        result = run(Plan.draw(seed, focus))
        tally.seeds += 1
        tally.messages += result.messages
        tally.calls += result.handled
        tally.virtual_seconds += result.ended
        tally.struck += result.struck
        if result.violations:
            tally.failed.append((seed, result.violations))
            if len(tally.failed) >= enough:
                break
    return tally


def run_seeds(
    seeds: range, jobs: int = 1, focus: Focus | None = None, enough: int = _ENOUGH
) -> Iterator[Tally]:
    """Run seeds, in some processes; yield what came of each chunk, in order.

    Where ``enough`` of them have failed, no more seeds are run.
    """
    chunks = [
        range(first, min(first + _CHUNK, seeds.stop))
        for first in range(seeds.start, seeds.stop, _CHUNK)
    ]
    work = partial(_run_chunk, focus=focus, enough=enough)
    if jobs == 1:
        yield from _until_enough(map(work, chunks), enough)
        return
    # Spawned: a fork would take the parent's threads' locks along.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            yield from _until_enough(pool.map(work, chunks), enough)
        finally:
            pool.shutdown(cancel_futures=True)


def _until_enough(tallies: Iterable[Tally], enough: int) -> Iterator[Tally]:
    failed = 0
    for tally in tallies:
        yield tally
        failed += len(tally.failed)
        if failed >= enough:
            return


def _replay(seed: int) -> int:
    result = run(Plan.draw(seed), traced=True)
    print(*result.trace, sep="\n")
    print(result.plan)
    print(*(result.violations or ["all promises were kept"]), sep="\n")
    return int(bool(result.violations))


def _report(tallies: Iterable[Tally]) -> int:
    total, began = Tally(), time.perf_counter()
    for tally in tallies:
        for seed, violations in tally.failed:
            print(f"seed {seed}: {violations[0]}", *violations[1:3], sep="\n    ", flush=True)
        total.add(tally)
    took = time.perf_counter() - began
    print(
        f"{total.seeds} seeds, {total.messages} messages, {sum(total.struck.values())} faults, "
        f"{total.virtual_seconds / 3600:.1f} virtual hours in {took:.1f} s "
        f"({total.seeds / took:.0f} seeds/s): {len(total.failed)} failed"
    )
    return int(bool(total.failed))


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    """Run what the arguments say; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="replay one seed, with its trace")
    what.add_argument("--seeds", type=_range, metavar="A-B", help="run a range of seeds")
    what.add_argument("--million", action="store_true", help="run the seeds 0-999999")
    what.add_argument("--write-docs", action="store_true", help="measure, and write the page")
    parser.add_argument("--jobs", type=int, default=1, help="in how many processes")
    options = parser.parse_args()
    if options.seed is not None:
        return _replay(options.seed)
    if options.write_docs:
        from tests.simulation.page import write

        return write()
    seeds = range(1_000_000) if options.million else options.seeds
    return _report(run_seeds(seeds, options.jobs))
