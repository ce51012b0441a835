"""What docs/reliability.md says of the runs, made from their results."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.readme import replace_block
from tests.faults.registry import ONCE, Kind

__all__ = ["read_results", "report", "write"]

#: The name of the markers around it.
NAME = "faults"
_HEAD = (
    "| Fault | Runs | Messages | Strikes | In flight | Lost | Twice | Out of order | Failed "
    "| Late | Callbacks missing | Callbacks again | Longest wait |"
)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the results that were kept, the last one of each kind and seed."""
    kept = {}
    for line in path.read_text("utf-8").splitlines():
        each = json.loads(line)
        kept[each["kind"], each["seed"]] = each
    return list(kept.values())


def report(results: Iterable[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> str:
    """Return the tables, as Markdown.

    Args:
        results: of runs, as `Result.to_dict` has them.
        kinds: the table of kinds, whose order is that of the rows.
    """
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for each in results:
        if each["kind"] in kinds:
            rows[each["kind"], each["delivery"]].append(each)
    runs = [each for of_one in rows.values() for each in of_one]
    lines = [*_summary(runs, kinds), ""]
    for title, controls in (("With the protections on", False), ("Controls", True)):
        chosen = [
            (name, delivery)
            for name, kind in kinds.items()
            for delivery in sorted(kind.deliveries)
            if bool(kind.control) == controls and (name, delivery) in rows
        ]
        if chosen:
            lines += [f"**{title}.**", "", _HEAD, "|---|" + "---:|" * (_HEAD.count("|") - 2)]
            lines += [_row(name, delivery, rows[name, delivery]) for name, delivery in chosen]
            lines.append("")
    lines += ["What each does:", "", "| Fault | What happens |", "|---|---|"]
    used = [kind for name, kind in kinds.items() if any(name == of for of, _ in rows)]
    lines += [f"| {kind.name} | {kind.does} |" for kind in used]
    load = f"{os.cpu_count()} cores shared with other work, load {os.getloadavg()[0]:.0f}"
    lines += ["", f"Written {datetime.now(UTC):%Y-%m-%d} by `python -m tests.faults`; {load}."]
    return "\n".join(lines)


def _summary(runs: list[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> list[str]:
    real = [each for each in runs if not kinds[each["kind"]].control]
    bad = [f"{each['kind']} (seed {each['seed']})" for each in real if not each["good"]]
    strikes = sum(len(each["strikes"]) for each in real)
    return [
        f"{len(real)} runs, {sum(each['accepted'] for each in real):,} messages, {strikes} faults: "
        f"lost {_lost(real)}, both outcomes {_sum(real, 'both_outcomes')}, without an outcome "
        f"{_sum(real, 'open')}, callbacks under another id {_sum(real, 'callbacks_other_id')}, "
        f"runs in which a promise did not hold {len(bad)}"
        + (f": {', '.join(bad)}." if bad else "."),
    ]


def _lost(runs: list[Mapping[str, Any]]) -> int:
    return sum(each["lost"] for each in runs if each["kind"] != "topic-deleted")


def _sum(runs: Iterable[Mapping[str, Any]], name: str) -> int:
    return sum(each[name] for each in runs)


def _row(name: str, delivery: str, runs: list[Mapping[str, Any]]) -> str:
    strikes = [each for run in runs for each in run["strikes"]]
    cells = [
        f"{name}, once" if delivery == ONCE else name,
        len(runs),
        f"{_sum(runs, 'accepted'):,}",
        len(strikes),
        f"{sum(strikes):,}",
        _sum(runs, "lost"),
        f"{_sum(runs, 'duplicated'):,}",
        _sum(runs, "out_of_order"),
        f"{_sum(runs, 'refused') + _sum(runs, 'unknown'):,}",
        _sum(runs, "open") + _sum(runs, "late") + _sum(runs, "late_waits"),
        _sum(runs, "callbacks_missing"),
        _sum(runs, "callbacks_repeated"),
        f"{max(each['longest_wait'] for each in runs):.1f} s",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def write(page: Path, results: Iterable[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> None:
    """Put the report between its markers in a page.

    Raises:
        ValueError: they are not there.
    """
    block = report(results, kinds)
    page.write_text(replace_block(page.read_text("utf-8"), block, NAME), "utf-8")
