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
from tests.faults.checker import check
from tests.faults.ledger import read_ledger
from tests.faults.plan import Plan, Result, promise_of
from tests.faults.registry import ONCE, Kind

__all__ = ["read_results", "report", "write"]

#: The name of the markers around it.
NAME = "faults"
_HEAD = (
    "| Fault | Runs | Messages | Strikes | In flight | Lost | Twice | Out of order | Failed "
    "| Late | Callbacks missing | Callbacks again | Longest wait |"
)


def read_results(path: Path, kinds: Mapping[str, Kind]) -> list[dict[str, Any]]:
    """Return the results that were kept, the last one of each kind and seed.

    Where the ledger is still there it is checked again, by what is promised now.
    """
    kept = {}
    for line in path.read_text("utf-8").splitlines():
        each = json.loads(line)
        if each["kind"] in kinds:
            kept[each["kind"], each["seed"]] = _checked(each, kinds[each["kind"]])
    return list(kept.values())


def _checked(each: dict[str, Any], kind: Kind) -> dict[str, Any]:
    ledger = Path(each["ledger"])
    if not ledger.is_dir():
        return each
    plan = Plan(kind, each["seed"], each["messages"])
    sets = check(read_ledger(ledger))
    broken = tuple(sets.broken(promise_of(plan, sets)))
    return Result(plan, sets, broken, ledger, each["seconds"]).to_dict()


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
    lines += _bounds(runs)
    lines += ["What each does:", "", "| Fault | What happens |", "|---|---|"]
    used = [kind for name, kind in kinds.items() if any(name == of for of, _ in rows)]
    lines += [f"| {kind.name} | {kind.does} |" for kind in used]
    cores = f"the runs had {os.cpu_count()} cores for all of it, shared with other work"
    lines += ["", f"Written {datetime.now(UTC):%Y-%m-%d} by `python -m tests.faults`; {cores}."]
    return "\n".join(lines)


def _summary(runs: list[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> list[str]:
    real = [each for each in runs if not kinds[each["kind"]].control]
    bad = [f"{each['kind']} (seed {each['seed']})" for each in real if not each["good"]]
    strikes, lost = sum(len(each["strikes"]) for each in real), _lost(real, kinds)
    deleted = sum(each["lost"] for each in real) - lost
    but = f" (without {deleted:,} that a fault deleted on purpose)" if deleted else ""
    return [
        f"{len(real)} runs, {sum(each['accepted'] for each in real):,} messages, "
        f"{strikes:,} faults: lost {lost}{but}, both outcomes {_sum(real, 'both_outcomes')}, "
        f"without an outcome {_sum(real, 'open')}, callbacks under another id "
        f"{_sum(real, 'callbacks_other_id')}, runs in which a promise did not hold {len(bad)}"
        + (f": {', '.join(bad)}." if bad else "."),
    ]


def _bounds(runs: list[Mapping[str, Any]]) -> list[str]:
    """What kinds measured: the worst figure of each, beside its bound."""
    worst: dict[tuple[str, str], tuple[float, float]] = {}
    for each in runs:
        for name, figure, bound in each.get("bounds", ()):
            key = each["kind"], name
            worst[key] = max(worst.get(key, (figure, bound)), (figure, bound))
    if not worst:
        return []
    head = [
        "**Figures with a bound.**",
        "",
        "| Fault | Figure | Worst | Bound |",
        "|---|---|---:|---:|",
    ]
    rows = [f"| {kind} | {name} | {f:g} | {b:g} |" for (kind, name), (f, b) in worst.items()]
    return [*head, *rows, ""]


def _lost(runs: list[Mapping[str, Any]], kinds: Mapping[str, Kind]) -> int:
    """How many are lost, those left out that somebody deleted."""
    return sum(each["lost"] for each in runs if not kinds[each["kind"]].promise.forgotten)


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
