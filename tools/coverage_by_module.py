"""Hold each module's branch coverage by its own tests: `python -m tools.coverage_by_module`.

The own tests of `celery_stargate/lanes/record.py` are those of `tests/unit/lanes/` and
`tests/integration/lanes/`: what other folders' tests reach on their way does not count. `tox -e
full` records every test's coverage in one run, with the test's name as context; this program reads
that data. The floors and the known gaps are in `tools/coverage_floors.toml`.

Exits with 1 when a module is below its floor, or when a known gap grew. One branch less is a note:
which branch a thread reaches just before its end may differ from run to run. The pure core has no
threads, so one branch less is an error there.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from coverage import Coverage, CoverageData

from tools.generated import fingerprints, measured_page, record

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "celery_stargate"
DATA = ROOT / ".tox" / "coverage.data"
FLOORS = ROOT / "tools" / "coverage_floors.toml"
PAGE = "docs/coverage.md"


#: How many branches of a module outside the pure core may be missed by chance.
CHANCE = 1

#: From line, to line; a negative line is the entry or the end of the code that begins there.
Arc = tuple[int, int]


@dataclass(frozen=True)
class Gap:
    """A known gap: what a module has, in percent, and why it is not more."""

    branches: float
    reason: str


@dataclass(frozen=True)
class Floors:
    """What is demanded, as `tools/coverage_floors.toml` says it.

    Attributes:
        floor: percent of the branches of every module.
        pure_floor: the same of the pure core.
        pure: globs of the modules of the pure core.
        shared_tests: more own tests, by glob of the module: prefixes of their paths.
        gaps: the known gaps, by module.
    """

    floor: float
    pure_floor: float
    pure: tuple[str, ...]
    shared_tests: Mapping[str, tuple[str, ...]]
    gaps: Mapping[str, Gap]

    @classmethod
    def parse(cls, text: str) -> Floors:
        """Read the TOML text.

        Raises:
            KeyError: a table or a key is missing.
            TypeError: an exception lacks its figure or its reason.
        """
        found = tomllib.loads(text)
        return cls(
            floor=found["floor"],
            pure_floor=found["pure"]["floor"],
            pure=tuple(found["pure"]["modules"]),
            shared_tests={key: tuple(each) for key, each in found["shared_tests"].items()},
            gaps={module: Gap(**gap) for module, gap in found["exceptions"].items()},
        )

    def of(self, module: str) -> float:
        """The percentage that a module must reach, known gaps aside."""
        return self.pure_floor if self.is_pure(module) else self.floor

    def is_pure(self, module: str) -> bool:
        """Whether a module is of the pure core."""
        return any(fnmatch(module, each) for each in self.pure)

    def tests_of(self, module: str) -> list[str]:
        """The paths, or beginnings of paths, of a module's own tests."""
        inside = Path(module).relative_to(PACKAGE)
        # Those of a module of the top level are its files alone, not the folders beside them.
        start = f"{inside.parent}/" if inside.parent.name else "test_"
        mirrored = [f"tests/{kind}/{start}" for kind in ("unit", "integration")]
        shared = [
            path
            for glob, paths in self.shared_tests.items()
            if fnmatch(module, glob)
            for path in paths
        ]
        return mirrored + shared


@dataclass(frozen=True)
class Figures:
    """How many branches a module has, and how many of them its own tests reach."""

    branches: int
    covered: int

    @property
    def percent(self) -> float:
        """The share that is reached; a module without branches has all of them."""
        return 100 * self.covered / self.branches if self.branches else 100.0

    def more(self, branches: int) -> Figures:
        """What they would be if so many more branches were reached."""
        return Figures(self.branches, min(self.branches, self.covered + branches))


def modules(root: Path = ROOT) -> list[str]:
    """Return the modules; `__init__.py` and `__main__.py` hold no logic of their own."""
    found = (root / PACKAGE).rglob("*.py")
    return sorted(str(each.relative_to(root)) for each in found if not each.stem.startswith("__"))


def lines_in_functions(source: str) -> set[int]:
    """Return the lines of all functions' bodies."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.update(range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1))
    return found


def own_arcs(data: CoverageData, path: Path, tests: Iterable[str]) -> set[Arc]:
    """Return what a module's own tests reach of it.

    What runs when the module is imported counts whichever test imports it first.
    """
    data.set_query_contexts([])
    inside = lines_in_functions(path.read_text("utf-8"))
    found = {
        arc
        for arc in data.arcs(str(path)) or []
        if abs(arc[0]) not in inside and abs(arc[1]) not in inside
    }
    data.set_query_contexts([f"^{re.escape(each)}" for each in tests])
    found.update(data.arcs(str(path)) or [])
    data.set_query_contexts([])
    return found


def measure(data: CoverageData, floors: Floors, root: Path = ROOT) -> dict[str, Figures]:
    """Return each module's figures by its own tests."""
    names = modules(root)
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own"
        only_own = CoverageData(str(own))
        only_own.add_arcs(
            {str(root / name): own_arcs(data, root / name, floors.tests_of(name)) for name in names}
        )
        only_own.write()
        only_own.close()
        coverage = Coverage(data_file=str(own), config_file=str(ROOT / "pyproject.toml"))
        coverage.load()
        report = Path(folder) / "report.json"
        coverage.json_report(morfs=[str(root / name) for name in names], outfile=str(report))
        coverage.get_data().close()
        files: dict[str, Any] = json.loads(report.read_text("utf-8"))["files"]
    found = {}
    for file, entry in files.items():
        totals = entry["summary"]
        name = str((ROOT / file).relative_to(root))
        found[name] = Figures(totals["num_branches"], totals["covered_branches"])
    return found


def problems(found: Mapping[str, Figures], floors: Floors) -> Iterator[str]:
    """Return what is wrong: a module below its floor, a gap that grew, a gap of no module."""
    for name, figures, floor, gap in _judged(found, floors):
        at_best = figures.more(0 if floors.is_pure(name) else CHANCE).percent
        if gap is None and at_best < floor:
            yield f"{_has(name, figures)}; the floor is {floor:g} %"
        elif gap is not None and at_best < gap.branches:
            yield f"{_has(name, figures)}; it had {gap.branches:g} %, and may not fall"
    for name in sorted(floors.gaps.keys() - found.keys()):
        yield f"{name} does not exist; remove its exception from {FLOORS.name}"


def notes(found: Mapping[str, Figures], floors: Floors) -> Iterator[str]:
    """Return what is no error, and to be looked at: one branch too few, a gap that is none."""
    for name, figures, floor, gap in _judged(found, floors):
        least = floor if gap is None else gap.branches
        if gap is not None and figures.percent >= floor:
            yield f"{_has(name, figures)}; remove its exception from {FLOORS.name}"
        elif figures.percent < least <= figures.more(CHANCE).percent and not floors.is_pure(name):
            yield f"{_has(name, figures)}; one branch less than {least:g} % may be chance"


def _judged(
    found: Mapping[str, Figures], floors: Floors
) -> Iterator[tuple[str, Figures, float, Gap | None]]:
    for name, figures in sorted(found.items()):
        yield name, figures, floors.of(name), floors.gaps.get(name)


def _has(name: str, figures: Figures) -> str:
    return f"{name}: its own tests reach {figures.percent:.1f} % of {figures.branches} branches"


def table(found: Mapping[str, Figures], floors: Floors) -> str:
    """Return the table of the page."""
    lines = ["| Module | Branches | Reached by its own tests | Floor |", "|---|---|---|---|"]
    for name, figures in sorted(found.items()):
        reached = f"{figures.percent:.0f} %" if figures.branches else ""
        gap = floors.gaps.get(name)
        floor = f"{floors.of(name):g} %"
        if gap is not None:
            floor = f"{gap.branches:g} % ({gap.reason})"
        lines.append(f"| {name} | {figures.branches} | {reached} | {floor} |")
    return "\n".join(lines) + "\n"


def with_gaps(text: str, found: Mapping[str, Figures], floors: Floors) -> str:
    """Return the TOML text with the present gaps as its exceptions; their reasons are kept."""
    head, _, _ = text.partition("[exceptions]\n")
    lines = [head + "[exceptions]"]
    for name, figures in sorted(found.items()):
        if figures.percent >= floors.of(name):
            continue
        known = floors.gaps.get(name)
        reason = json.dumps(known.reason if known else "not covered yet", ensure_ascii=False)
        # Rounded down: what a thread reaches just before its end differs from run to run.
        percent = float(int(figures.percent / 5) * 5)
        lines.append(f'"{name}" = {{ branches = {percent}, reason = {reason} }}')
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print the table, the notes, and what is wrong; 1 when something is."""
    parser = argparse.ArgumentParser(prog="python -m tools.coverage_by_module", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="of the run that was measured")
    parser.add_argument("--write", action="store_true", help="write docs/coverage.md")
    parser.add_argument("--update", action="store_true", help="write the exceptions' figures")
    options = parser.parse_args()
    if not options.data.is_file():
        print(f"{options.data} does not exist: `tox -e full` writes it", file=sys.stderr)
        return 1
    text = FLOORS.read_text("utf-8")
    floors = Floors.parse(text)
    data = CoverageData(str(options.data))
    data.read()
    found = measure(data, floors)
    if options.update:
        text = with_gaps(text, found, floors)
        FLOORS.write_text(text, "utf-8")
        floors = Floors.parse(text)
    page = table(found, floors)
    print(page)
    if options.write:
        record(PAGE, page.rstrip("\n"), fingerprints(measured_page(PAGE)))
    for note in notes(found, floors):
        print("note:", note)
    wrong = list(problems(found, floors))
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
