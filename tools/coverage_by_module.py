"""Branch coverage of each module by its own tests alone: `python -m tools.coverage_by_module`.

The own tests of `celery_stargate/lanes/record.py` are `tests/unit/lanes/test_record.py` and
`tests/integration/lanes/test_record.py`; what other modules' tests reach by the way does not count.
Each module has a run of its own. Prints a table and writes docs/coverage.md. The integration tests
want servers: `python -m tools.with_servers` starts them once for all runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverage import Coverage

from tools.generated import fingerprints, measured_page, record

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "celery_stargate"
PAGE = "docs/coverage.md"

#: Seconds for the tests of one module.
_TIMEOUT = 600.0
#: How much of a failed run is shown: its end.
_SHOWN = 8000


@dataclass(frozen=True)
class Figures:
    """What the tests reach of one module."""

    branches: int
    branches_covered: int
    #: Of lines and branches together, as coverage counts.
    percent: float


def modules() -> list[Path]:
    """Return the modules; `__init__.py` and `__main__.py` hold no logic of their own."""
    return sorted(each for each in PACKAGE.rglob("*.py") if not each.stem.startswith("__"))


def own_tests(module: Path, speeds: tuple[str, ...]) -> list[str]:
    """Return a module's own test files among the tests of some speeds, by their mirrored path."""
    inside = module.relative_to(PACKAGE)
    name = inside.with_name(f"test_{inside.name}")
    found = [ROOT / "tests" / speed / name for speed in speeds]
    return [str(each.relative_to(ROOT)) for each in found if each.is_file()]


def measure(module: Path, tests: list[str], folder: Path) -> tuple[Figures, bool]:
    """Run a module's own tests; return what they reach, and whether they passed."""
    data, report = folder / "data", folder / "report.json"
    data.unlink(missing_ok=True)
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={data}"]
    command += ["-m", "pytest", "-q", "--no-header", *tests]
    done = subprocess.run(
        command, check=False, cwd=ROOT, timeout=_TIMEOUT, capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout[-_SHOWN:], done.stderr[-_SHOWN:], sep="\n", file=sys.stderr)
    coverage = Coverage(data_file=str(data), config_file=str(ROOT / "pyproject.toml"))
    coverage.load()
    coverage.json_report(morfs=[str(module)], outfile=str(report))
    totals: dict[str, Any] = json.loads(report.read_text("utf-8"))["totals"]
    figures = Figures(totals["num_branches"], totals["covered_branches"], totals["percent_covered"])
    return figures, done.returncode == 0


def row(module: Path, tests: list[str], figures: Figures | None) -> str:
    """Return a module's line of the table."""
    name = str(module.relative_to(ROOT))
    if figures is None:
        return f"| {name} | none | | |"
    branches = "no branches"
    if figures.branches:
        share = 100 * figures.branches_covered / figures.branches
        branches = f"{share:.0f} % of {figures.branches}"
    return f"| {name} | {' '.join(tests)} | {branches} | {figures.percent:.0f} % |"


def main() -> int:
    """Run the tests, print the table, write the page; 1 when a test failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.coverage_by_module", description=__doc__)
    parser.add_argument("--unit", action="store_true", help="only the tests that need no server")
    parser.add_argument("--print-only", action="store_true", help="leave docs/coverage.md alone")
    options = parser.parse_args()
    sources = fingerprints(measured_page(PAGE))
    speeds = ("unit",) if options.unit else ("unit", "integration")
    lines = ["| Module | Its own tests | Branches | Lines and branches |", "|---|---|---|---|"]
    print(*lines, sep="\n")
    all_passed = True
    with tempfile.TemporaryDirectory() as folder:
        for module in modules():
            tests, figures = own_tests(module, speeds), None
            if tests:
                figures, passed = measure(module, tests, Path(folder))
                all_passed = all_passed and passed
            lines.append(row(module, tests, figures))
            print(lines[-1], flush=True)
    if all_passed and not options.print_only and not options.unit:
        record(PAGE, "\n".join(lines), sources)
    return 0 if all_passed else 1


if __name__ == "__main__":
    sys.exit(main())
