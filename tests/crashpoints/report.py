"""What docs/reliability.md says of the crash points, made from the results of their runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.readme import replace_block

__all__ = ["read_results", "report", "write"]

#: The name of the markers around it.
NAME = "crashpoints"
_PULSARS = {"local": "`LocalPulsar`", "real": "a real broker"}
_HEAD = (
    "| Pulsar | Runs | Points | Accepted | Found | Lost | Both outcomes | Open | Out of order "
    "| Callbacks missing | Another id | Again | Copies, at least once | Copies, once "
    "| Runs not good |"
)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the results that were kept, one a line."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def report(results: Iterable[Mapping[str, Any]]) -> str:
    """Return the table, as Markdown.

    Args:
        results: of runs, as `Result.to_dict` has them, with the `pulsar` they ran at.
    """
    kept = list(results)
    rows = [
        _row(name, [each for each in kept if each["pulsar"] == pulsar])
        for pulsar, name in _PULSARS.items()
    ]
    lines = [_HEAD, "|---|" + "---:|" * (_HEAD.count("|") - 2), *(each for each in rows if each)]
    return "\n".join(lines)


def _row(name: str, runs: list[Mapping[str, Any]]) -> str | None:
    if not runs:
        return None

    def total(count: str, delivery: str = "") -> str:
        return f"{sum(each[count] for each in runs if delivery in each['delivery']):,}"

    cells = [
        name,
        f"{len(runs):,}",
        str(len({each["point"] for each in runs})),
        *map(total, ("accepted", "found", "lost", "both_outcomes", "open", "out_of_order")),
        f"{total('callbacks_missing')} of {total('callbacks_wanted')}",
        *map(total, ("callbacks_other_id", "callbacks_repeated")),
        total("duplicated", "at_least_once"),
        total("duplicated", "effectively_once"),
        str(sum(not each["good"] for each in runs)),
    ]
    return f"| {' | '.join(cells)} |"


def write(page: Path, results: Iterable[Mapping[str, Any]]) -> None:
    """Put the report between its markers in a page.

    Raises:
        ValueError: they are not there.
    """
    page.write_text(replace_block(page.read_text("utf-8"), report(results), NAME), "utf-8")
