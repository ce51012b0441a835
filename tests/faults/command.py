"""The command line: `python -m tests.faults`."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.faults import bounds, limits, links, processes, releases, servers, stores
from tests.faults.environment import SECRET
from tests.faults.plan import Plan, Result
from tests.faults.registry import KINDS, Kind
from tests.faults.report import read_results, write
from tests.faults.trial import IDLE_SESSION, Trial
from tests.servers.credentials import make_tls
from tests.servers.pulsar import PulsarServer

__all__ = ["Brokers", "main", "run_all"]

#: They fill the table.
_TABLE = (processes, releases, servers, stores, links, limits, bounds)


@dataclass(frozen=True)
class Unfinished:
    """A run that came to no verdict."""

    plan: Plan
    why: str

    @property
    def good(self) -> bool:
        """It is not."""
        return False

    def __str__(self) -> str:
        return f"UNFINISHED {self.plan.kind.name} seed {self.plan.seed}: {self.why}"


class Brokers:
    """The Pulsars that runs share: one at a time, started when one is needed. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._held: dict[str, PulsarServer] = {}
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def forget(self) -> None:
        """End the broker that runs: a run may have left it in any state."""
        self._open.close()
        self._held.clear()

    def get(self, name: str) -> PulsarServer:
        """The broker of that name (see `Setup.broker`); another that runs is ended."""
        if name not in self._held:
            self.forget()
            folder = self._folder / f"pulsar-{name}-{next(self._numbers)}"
            made = PulsarServer(
                folder,
                deduplication=name != "no-deduplication",
                token_secret=SECRET if name == "tokens" else None,
                tls=make_tls(folder / "tls", require_client=True) if name == "tls" else None,
                extra={
                    "tlsCertRefreshCheckDurationSec": "1",
                    "webSocketSessionIdleTimeoutMillis": str(round(IDLE_SESSION * 1000)),
                    "backlogQuotaCheckIntervalInSeconds": "1",
                },
            )
            self._open.callback(made.kill)
            made.start()
            self._held[name] = made
        return self._held[name]


def run_all(plans: Sequence[Plan], folder: Path) -> Iterator[Result | Unfinished]:
    """Run plans, those of one broker together; each has a folder of its own below the given."""
    with Brokers(folder) as brokers:
        for plan in sorted(plans, key=lambda each: each.kind.setup.broker, reverse=True):
            place = folder / f"{plan.kind.name}-{plan.seed}"
            try:
                yield Trial(brokers.get(plan.kind.setup.broker), place, plan).run()
            except Exception as error:  # noqa: BLE001  # the others run all the same
                brokers.forget()
                yield Unfinished(plan, f"{type(error).__name__}: {error}")


def _chosen(names: Sequence[str], *, everything: bool) -> list[Kind]:
    if everything:
        return list(KINDS.values())
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise SystemExit(f"there is no kind {unknown[0]!r}; see --list")
    return [KINDS[name] for name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; 1 where a promise was broken, or a control found nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kind", action="append", default=[], help="run this kind; again for more")
    parser.add_argument("--all", action="store_true", help="run all kinds")
    parser.add_argument("--list", action="store_true", help="print the kinds, and run none")
    parser.add_argument("--seed", type=int, default=1, help="of the first run of each kind")
    parser.add_argument("--runs", type=int, default=1, help="how many of each kind")
    parser.add_argument("--messages", type=int, default=5000, help="in each run")
    parser.add_argument("--in-flight", type=int, default=500, help="when a fault strikes")
    parser.add_argument("--size", type=int, help="in place of the kind's own")
    parser.add_argument(
        "--strikes", type=int, help="in each run; by default they grow with its messages"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each run")
    parser.add_argument("--ledgers", type=Path, help="where raw ledgers are kept")
    parser.add_argument(
        "--report", type=Path, metavar="PAGE", help="write all results of --ledgers into a page"
    )
    given = parser.parse_args(arguments)
    if given.list:
        for kind in KINDS.values():
            print(f"{kind.name:<40} {kind.does}")
        return 0
    kinds = _chosen(given.kind, everything=given.all)
    if not kinds and not (given.report and given.ledgers):
        parser.error("say --kind NAME, --all or --list; or --report and --ledgers")
    folder = given.ledgers or Path("build") / "faults" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    plans = []
    for kind in kinds:
        reason = kind.missing()
        if reason is not None:
            print(f"skipped {kind.name}: {reason}", flush=True)
            continue
        plans += [
            Plan(kind, seed, given.messages, given.in_flight, given.size, given.strikes)
            for seed in range(given.seed, given.seed + given.runs)
        ]
    results: list[Result | Unfinished] = []
    with (folder / "results.jsonl").open("a") as file:
        for result in run_all(plans, folder.resolve()):
            results.append(result)
            if isinstance(result, Unfinished):
                print(result, file=sys.stderr if given.json else sys.stdout, flush=True)
                continue
            line = json.dumps(result.to_dict())
            file.write(line + "\n")
            file.flush()
            print(line if given.json else result, flush=True)
    if given.report:
        write(given.report, read_results(folder / "results.jsonl", KINDS), KINDS)
    if not given.json:
        bad = sum(not each.good for each in results)
        print(f"{len(results)} runs, {bad} not good; ledgers: {folder}")
    return int(not all(each.good for each in results))
