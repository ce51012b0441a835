"""Measure the simulator, and write docs/simulation.md."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from coverage import Coverage

from tests.simulation.cases import CASES
from tests.simulation.command import Tally, run_seeds
from tests.simulation.controls import CONTROLS
from tools.generated import fingerprints, measured_page, record

__all__ = ["write"]

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = "docs/simulation.md"

#: How many seeds are run for the rate and the counts, and for the coverage.
_SEEDS, _COVERED = 3_000, 600
#: The modules whose logic is simulated.
_MODULES = (
    *("pulsar/window.py", "pulsar/session.py", "pulsar/sequence.py"),
    *(f"delivery/{name}.py" for name in ("effects_queue", "in_flight", "keeper", "lease", "owner")),
    *(f"delivery/{name}.py" for name in ("retry", "sender", "settler", "source", "states")),
    *("delivery/supervisor.py", "delivery/watcher.py", "delivery/renewals.py"),
    *("lanes/leased.py", "support/backoff.py", "support/cancel.py", "support/changes.py"),
)


def _measure() -> tuple[Tally, float]:
    total, began = Tally(), time.process_time()
    for tally in run_seeds(range(_SEEDS)):
        total.add(tally)
    return total, time.process_time() - began


def _coverage(folder: Path) -> dict[str, Any]:
    data, report = folder / "data", folder / "report.json"
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={data}"]
    command += ["-m", "tests.simulation", "--seeds", f"0-{_COVERED - 1}"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    coverage = Coverage(data_file=str(data), config_file=str(ROOT / "pyproject.toml"))
    coverage.load()
    modules = [str(ROOT / "celery_stargate" / each) for each in _MODULES]
    coverage.json_report(morfs=modules, outfile=str(report))
    found: dict[str, Any] = json.loads(report.read_text("utf-8"))["files"]
    return found


def _rows(files: dict[str, Any]) -> list[str]:
    rows = ["| Module | Branches | Not taken (from line -> to line) |", "|---|---|---|"]
    for name, found in sorted(files.items()):
        summary = found["summary"]
        branches = "no branches"
        if summary["num_branches"]:
            share = 100 * summary["covered_branches"] / summary["num_branches"]
            branches = f"{share:.0f} % of {summary['num_branches']}"
        missing = ", ".join(f"{a} -> {b}" for a, b in found["missing_branches"])
        rows.append(f"| {name} | {branches} | {missing} |")
    return rows


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _rate(tally: Tally, took: float) -> str:
    return (
        f"{tally.seeds} seeds with {tally.messages} messages and {sum(tally.struck.values())} "
        f"faults, {tally.virtual_seconds / 3600:.1f} virtual hours, in {took:.0f} s of one core: "
        f"**{tally.seeds / took:.0f} seeds a second**, none failed. CI runs 2,000."
    )


def write() -> int:
    """Measure, and write the page; 1 where a seed fails."""
    sources = fingerprints(measured_page(PAGE))
    tally, took = _measure()
    for seed, violations in tally.failed:
        print(f"seed {seed}: {violations[0]}")
    if tally.failed:
        return 1
    with tempfile.TemporaryDirectory() as folder:
        files = _coverage(Path(folder))
    lines = [
        f"{_rate(tally, took)} ({_machine()}.)",
        "",
        "| Fault | Times |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in sorted(tally.struck.items())),
        "",
        f"Branches that {_COVERED} seeds take:",
        "",
        *_rows(files),
        "",
        "**Controls.** With each of these switched off, the checker finds a broken promise within "
        "a few seeds: " + ", ".join(CONTROLS) + ".",
        "",
        "**What it found** while the package was built:",
        "",
        *(f"- *{name}.* {case.why}" for name, case in CASES.items()),
    ]
    record(PAGE, "\n".join(lines), sources)
    print(f"{PAGE}: {tally.seeds / took:.0f} seeds a second")
    return 0
