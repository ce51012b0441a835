"""Run all environments of tox.ini in an order that fits two cores: `python -m tools.run_tox`.

First the quick ones, then everything on this Python with the newest Celery, alone, for its tests
measure time; then the other pairs of Python and Celery, two at a time. A failure does not keep the
rest from running. The last line sums the tests up: `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

_ROOT = Path(__file__).resolve().parent.parent
_JUNIT = _ROOT / ".tox" / "junit"

#: Environments with a purpose of their own; all others are pairs of a Python and a Celery.
_QUICK = ("lint", "types", "docs", "wheel")
_FULL = "full"
_LAST = ("coverage",)


@dataclass
class Counts:
    """What came of the tests of one or more environments."""

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


def _tox(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tox", *arguments]


def pairs() -> list[str]:
    """Return the pairs of Python and Celery, without the one that `full` is."""
    listed = subprocess.run(
        _tox("list", "--no-desc", "-q"), check=True, capture_output=True, text=True, cwd=_ROOT
    ).stdout.split()
    names = [name for name in listed if name.startswith("py")]
    newest = max(name.partition("-")[2] for name in names)
    this = f"py{sys.version_info.major}{sys.version_info.minor}-{newest}"
    return [name for name in names if name != this]


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


def summary(took: Iterable[tuple[str, int, float]]) -> str:
    """Return what is shown at the very end."""
    lines = ["", "== groups"]
    for name, status, seconds in took:
        lines.append(f"{name:<12} {'ok' if status == 0 else 'FAILED':<8} {seconds:6.0f} s")
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
    shutil.rmtree(_JUNIT, ignore_errors=True)
    groups = [
        ("quick", _tox("run", "-e", ",".join(_QUICK))),
        ("full", _tox("run", "-e", _FULL)),
        (
            "pairs",
            [*_tox("run-parallel", "-p", "2", "--parallel-no-spinner"), "-e", ",".join(pairs())],
        ),
        ("coverage", _tox("run", "-e", ",".join(_LAST))),
    ]
    took: list[tuple[str, int, float]] = []
    for name, command in groups:
        began = time.monotonic()
        status = subprocess.run(command, check=False, cwd=_ROOT).returncode
        took.append((name, status, time.monotonic() - began))
    print(summary(took), flush=True)
    return 1 if any(status for _, status, _ in took) else 0


if __name__ == "__main__":
    sys.exit(main())
