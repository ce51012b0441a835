"""Run environments of tox.ini in an order that fits two cores: `python -m tools.run_tox WHAT`.

- `test` (`make test`): lint, types, docs, the site; every test on this Python with the newest
  Celery; and the floors of the coverage that this run recorded, if no test failed or was skipped.
- `rest` (`make rest`): what CI runs besides: the wheel, the pairs of Python and Celery on the
  diagonal (the oldest, the newest, and one between), the contract with the oldest Pulsar, and the
  suite in containers.
- `matrix` (`make matrix`): all pairs.

A failure does not keep the rest from running. The last line sums up the tests of this run and, for
`rest`, those of `test` before it: `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tools.support_matrix import environments

_ROOT = Path(__file__).resolve().parent.parent
_JUNIT = _ROOT / ".tox" / "junit"

#: The pairs of Python and Celery that every commit is tested with.
_DIAGONAL = ("py311-celery55", "py312-celery56", "py313-celery57")


@dataclass
class Counts:
    """How the tests of one or more environments ended."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    #: Known faults, marked so: they failed as expected.
    xfailed: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of another."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.xfailed += other.xfailed

    def __str__(self) -> str:
        text = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        return f"{text}, {self.xfailed} xfailed" if self.xfailed else text


@dataclass(frozen=True)
class Group:
    """Environments that run together.

    Attributes:
        name: for the summary.
        environments: their names in tox.ini.
        parallel: how many run at a time.
        reads: the environment whose tests' record it reads; it runs only if all of them passed.
    """

    name: str
    environments: tuple[str, ...]
    parallel: int = 1
    reads: str | None = None

    def run(self) -> int:
        """Run them to their end; return tox's exit status."""
        if self.parallel == 1:
            command = _tox("run")
        else:
            command = _tox("run-parallel", "-p", str(self.parallel), "--parallel-no-spinner")
        command += ["-e", ",".join(self.environments)]
        return subprocess.run(command, check=False, cwd=_ROOT).returncode


def _tox(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tox", *arguments]


def groups(what: str) -> list[Group]:
    """Return what runs, in order.

    Raises:
        KeyError: there is nothing of that name.
    """
    if what == "matrix":
        return [Group("pairs", environments(), parallel=2)]
    return {
        "test": [
            Group("quick", ("lint", "types", "docs", "site")),
            Group("full", ("full",)),
            Group("coverage", ("coverage",), reads="full"),
        ],
        "rest": [
            Group("wheel", ("wheel",)),
            Group("pairs", _DIAGONAL, parallel=2),
            Group("Pulsar 3.0", ("pulsar30",)),
            Group("containers", ("pytest-celery",)),
        ],
    }[what]


def read_junit(path: Path) -> tuple[Counts, list[str]]:
    """Return the counts of one junit file, and the reasons of its skips."""
    counts, reasons = Counts(), []
    for case in ET.parse(path).getroot().iter("testcase"):
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts.failed += 1
        elif skip is not None and skip.get("type") == "pytest.xfail":
            counts.xfailed += 1
        elif skip is not None:
            counts.skipped += 1
            reasons.append(skip.get("message", ""))
        else:
            counts.passed += 1
    return counts, reasons


def all_passed(path: Path) -> bool:
    """Tell whether a junit file is there, and says that every test ran and passed."""
    if not path.is_file():
        return False
    counts, _ = read_junit(path)
    return counts.passed > 0 and not counts.failed and not counts.skipped


def summary(took: Iterable[tuple[str, int | None, float]]) -> str:
    """Return what is shown at the very end; a group without a status did not run."""
    lines = ["", "== groups"]
    for name, status, seconds in took:
        ended = {None: "not run", 0: "ok"}.get(status, "FAILED")
        lines.append(f"{name:<12} {ended:<8} {seconds:6.0f} s")
    lines.append("== tests")
    total, skips = Counts(), set()
    for path in sorted(_JUNIT.glob("*.xml")):
        counts, reasons = read_junit(path)
        total.add(counts)
        skips.update(reasons)
        lines.append(f"{path.stem:<18} {counts}")
    lines.extend(f"skipped: {reason}" for reason in sorted(skips))
    lines.append(str(total))
    return "\n".join(lines)


def main() -> int:
    """Run the groups one after the other; 1 when one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.run_tox",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("test", "rest", "matrix"))
    what = parser.parse_args().what
    if what != "rest":
        shutil.rmtree(_JUNIT, ignore_errors=True)
    took: list[tuple[str, int | None, float]] = []
    for group in groups(what):
        began = time.monotonic()
        ready = group.reads is None or all_passed(_JUNIT / f"{group.reads}.xml")
        status = group.run() if ready else None
        took.append((group.name, status, time.monotonic() - began))
    print(summary(took), flush=True)
    return 1 if any(status for _, status, _ in took) else 0


if __name__ == "__main__":
    sys.exit(main())
