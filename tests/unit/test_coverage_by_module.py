"""``tools/coverage_by_module.py``: whose tests count, and what is below its floor."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage import CoverageData

from tools.coverage_by_module import (
    Figures,
    Floors,
    lines_in_functions,
    measure,
    notes,
    own_arcs,
    problems,
    table,
    with_gaps,
)

TOML = """\
# Words.
floor = 95.0
[pure]
floor = 100.0
modules = ["celery_stargate/model/*.py"]
[shared_tests]
"celery_stargate/testing/*.py" = ["tests/contract/"]
[exceptions]
"celery_stargate/old.py" = { branches = 70.0, reason = "hard to reach" }
"""

SOURCE = """\
if __name__:
    A = 1


def f(a):
    if a:
        return 1
    return 2
"""

OWN = "tests/unit/test_some.py::test_it|run"
OTHERS = "tests/unit/lanes/test_other.py::test_it|run"


@pytest.fixture
def floors() -> Floors:
    """Those of the text above."""
    return Floors.parse(TOML)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one module."""
    package = tmp_path / "celery_stargate"
    package.mkdir()
    (package / "some.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def data(root: Path) -> CoverageData:
    """Imported by another module's test; each test reaches one branch of the function."""
    path = str(root / "celery_stargate" / "some.py")
    data = CoverageData(str(root / "data"))
    for context, arcs in {
        OTHERS: [(-1, 1), (1, 2), (2, 5), (5, -1), (-5, 6), (6, 8), (8, -5)],
        OWN: [(-5, 6), (6, 7), (7, -5)],
    }.items():
        data.set_context(context)
        data.add_arcs({path: arcs})
    return data


def test_own_tests_are_the_mirrored_ones(floors: Floors) -> None:
    """Those of its folder, and for some folders more."""
    assert floors.tests_of("celery_stargate/lanes/record.py") == [
        "tests/unit/lanes/",
        "tests/integration/lanes/",
    ]
    assert floors.tests_of("celery_stargate/task.py") == [
        "tests/unit/test_",
        "tests/integration/test_",
    ]
    assert "tests/contract/" in floors.tests_of("celery_stargate/testing/server.py")


def test_the_pure_core_has_a_floor_of_its_own(floors: Floors) -> None:
    """By its path."""
    assert floors.of("celery_stargate/model/message.py") == 100
    assert floors.of("celery_stargate/task.py") == 95


def test_functions_count_by_own_tests_and_imports_by_all(root: Path, data: CoverageData) -> None:
    """A module is imported once, whoever does it."""
    assert lines_in_functions(SOURCE) == {6, 7, 8}
    path = root / "celery_stargate" / "some.py"
    found = own_arcs(data, path, ["tests/unit/test_some.py"])
    assert {(1, 2), (6, 7)} <= found
    assert (6, 8) not in found


def test_branches_are_measured_by_own_tests(root: Path, data: CoverageData, floors: Floors) -> None:
    """Of two of the import and two of the function, one each."""
    assert measure(data, floors, root) == {"celery_stargate/some.py": Figures(4, 2)}


@pytest.mark.parametrize(
    ("name", "covered", "words"),
    [
        ("celery_stargate/new.py", 18, None),
        ("celery_stargate/new.py", 17, "the floor is 95 %"),
        ("celery_stargate/model/new.py", 20, None),
        ("celery_stargate/model/new.py", 19, "the floor is 100 %"),
        ("celery_stargate/old.py", 13, None),
        ("celery_stargate/old.py", 12, "it had 70 %, and may not fall"),
        ("celery_stargate/old.py", 20, None),
    ],
)
def test_what_is_wrong(floors: Floors, name: str, covered: int, words: str | None) -> None:
    """Two branches below the floor, or below a known gap; in the pure core one."""
    found = {"celery_stargate/old.py": Figures(20, 14), name: Figures(20, covered)}
    wrong = list(problems(found, floors))
    assert [words in each for each in wrong] == [True] if words else wrong == []


@pytest.mark.parametrize(
    ("name", "covered", "words"),
    [
        ("celery_stargate/new.py", 19, None),
        ("celery_stargate/new.py", 18, "one branch less than 95 % may be chance"),
        ("celery_stargate/new.py", 17, None),
        ("celery_stargate/model/new.py", 19, None),
        ("celery_stargate/old.py", 14, None),
        ("celery_stargate/old.py", 13, "one branch less than 70 % may be chance"),
        ("celery_stargate/old.py", 20, "remove its exception"),
    ],
)
def test_what_is_noted(floors: Floors, name: str, covered: int, words: str | None) -> None:
    """One branch too few, and a gap that is none any more."""
    found = {"celery_stargate/old.py": Figures(20, 14), name: Figures(20, covered)}
    noted = list(notes(found, floors))
    assert [words in each for each in noted] == [True] if words else noted == []


def test_an_exception_for_a_module_that_is_gone(floors: Floors) -> None:
    """It must go, too."""
    assert list(problems({}, floors)) == [
        "celery_stargate/old.py does not exist; remove its exception from coverage_floors.toml"
    ]


def test_gaps_are_written_with_their_reasons(floors: Floors) -> None:
    """Those that are gone are left out; a new one needs its reason."""
    found = {
        "celery_stargate/fine.py": Figures(0, 0),
        "celery_stargate/new.py": Figures(3, 1),
        "celery_stargate/old.py": Figures(20, 15),
    }
    text = with_gaps(TOML, found, floors)
    assert text.startswith("# Words.\n")
    gaps = Floors.parse(text).gaps
    assert gaps.keys() == {"celery_stargate/new.py", "celery_stargate/old.py"}
    assert gaps["celery_stargate/new.py"].branches == 30.0
    assert gaps["celery_stargate/old.py"].reason == "hard to reach"
    assert list(problems(found, Floors.parse(text))) == []
    assert "| celery_stargate/old.py | 20 | 75 % | 75 % (hard to reach) |" in table(
        found, Floors.parse(text)
    )
