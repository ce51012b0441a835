"""``tools/generated.py`` and ``tools/check_docs.py``: what makes a page old, and what they find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.readme import block_of
from tools import check_docs, generated
from tools.generated import Measured, fingerprint, fingerprints, record

PAGE = """\
# A page

<!-- state:begin -->
<!-- state:end -->

<!-- measured:begin -->
<!-- measured:end -->

<!-- sources:begin -->
<!-- sources:end -->
"""

PYTHON = '''\
"""What it is for."""

TEXT = "# 1"  # a comment


def f() -> int:
    """Return 1."""
    return 1
'''

LUA = "-- A comment\nreturn redis.call('GET', KEYS[1]) -- another\n"


def written(folder: Path, name: str, text: str) -> Path:
    """Write a file; return its path."""
    path = folder / name
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "changes"),
    [
        ("a.py", PYTHON, [("Return 1", "Return one"), ("a comment", "none"), ("What", "Why")]),
        ("a.lua", LUA, [("A comment", "None"), (" -- another", "")]),
    ],
)
def test_words_make_no_page_old(
    tmp_path: Path, name: str, text: str, changes: list[tuple[str, str]]
) -> None:
    """A comment or a docstring changes nothing that was measured."""
    before = fingerprint(written(tmp_path, name, text))
    for old, new in changes:
        assert fingerprint(written(tmp_path, name, text.replace(old, new))) == before


@pytest.mark.parametrize(
    ("name", "text", "old", "new"),
    [
        ("a.py", PYTHON, "return 1", "return 2"),
        ("a.py", PYTHON, '"# 1"', '"# 2"'),
        ("a.lua", LUA, "GET", "DEL"),
    ],
)
def test_code_makes_a_page_old(tmp_path: Path, name: str, text: str, old: str, new: str) -> None:
    """So does a text in the code that looks like a comment."""
    before = fingerprint(written(tmp_path, name, text))
    assert fingerprint(written(tmp_path, name, text.replace(old, new))) != before


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A measured page with one source, alone in a tree."""
    monkeypatch.setattr(generated, "ROOT", tmp_path)
    monkeypatch.setattr(generated, "BLOCKS", ())
    measured = Measured("page.md", "make figures", "an hour", ("*.lua",))
    monkeypatch.setattr(generated, "MEASURED", (measured,))
    written(tmp_path, "a.lua", LUA)
    return written(tmp_path, "page.md", PAGE)


def measure() -> None:
    """Do as a command that measures."""
    record("page.md", "| figures |", fingerprints(generated.measured_page("page.md")))


def test_measured_page_is_up_to_date(page: Path) -> None:
    """What was measured stands there, with its sources; nothing is to be done."""
    measure()
    text = page.read_text("utf-8")
    assert block_of(text, "measured") == "| figures |"
    assert "a.lua" in block_of(text, "sources")
    assert block_of(text, "state").startswith("Up to date")
    assert not list(generated.problems())
    assert not list(generated.warnings())


def test_page_that_is_silent_about_its_age_is_a_problem(page: Path, tmp_path: Path) -> None:
    """A source changed: the check fails until the page says so; then it only warns."""
    measure()
    written(tmp_path, "a.lua", LUA.replace("GET", "DEL"))
    ((path, problem),) = generated.problems()
    assert path == page
    assert "python -m tools.generated --write" in problem
    assert generated.write() == ["page.md"]
    state = block_of(page.read_text("utf-8"), "state")
    assert "Out of date" in state
    assert "`a.lua`" in state
    assert "make figures" in state
    assert not list(generated.problems())
    assert len(list(generated.warnings())) == 1
    assert block_of(page.read_text("utf-8"), "measured") == "| figures |"


def test_new_source_makes_a_page_old(page: Path, tmp_path: Path) -> None:
    """It was not measured."""
    measure()
    written(tmp_path, "b.lua", LUA)
    assert len(list(generated.problems())) == 1


def test_a_page_that_looks_at_names_alone(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so: a source that changed is none that was added or removed."""
    measured = generated.measured_page("page.md")
    monkeypatch.setattr(generated, "MEASURED", (replace(measured, names_only=True),))
    measure()
    written(tmp_path, "a.lua", LUA.replace("GET", "DEL"))
    assert not list(generated.problems())
    state = block_of(page.read_text("utf-8"), "state")
    assert state.startswith("Up to date: no source was added or removed")
    written(tmp_path, "b.lua", LUA)
    generated.write()
    state = block_of(page.read_text("utf-8"), "state")
    assert "1 of 2 sources were added or removed" in state


def test_sources_are_those_of_before_the_measurement(page: Path, tmp_path: Path) -> None:
    """Whoever edits a source while it is measured does not make the page look new."""
    before = fingerprints(generated.measured_page("page.md"))
    written(tmp_path, "a.lua", LUA.replace("GET", "DEL"))
    record("page.md", "| figures |", before)
    assert "Out of date" in block_of(page.read_text("utf-8"), "state")


def test_tree_names_each_module() -> None:
    """With the first line of its docstring."""
    tree = generated.render_tree()
    assert "    outcome.py" in tree
    assert "The exceptions of celery_stargate" in tree
    assert "__pycache__" not in tree


def test_floors_are_those_of_the_contract() -> None:
    """Every module stands on a floor, but for tools that nobody below may import."""
    named = {name for names in generated.floors() for name in names}
    found = {path.stem for path in generated.PACKAGE.iterdir() if not path.name.startswith("_")}
    assert named <= found
    assert found - named <= {"testing", "py"}


def test_diagram_has_each_transition() -> None:
    """As the table that the code executes has it."""
    text = generated.render_contexts()
    assert "[*] --> PENDING: put, put_many" in text
    assert "PENDING --> [*]: complete" in text
    assert "| DUE | " in text


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("`stargate_max_in_flight`, `stargate_…`, celery_stargate", 0),
        ("set `stargate_max_pendin`", 1),
        ("set stargate_no_such=1", 1),
    ],
)
def test_names_of_settings_are_checked(text: str, problems: int) -> None:
    """A setting that was renamed or never was is found."""
    assert len(list(check_docs.check_setting_names(text))) == problems


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("see `tools/check_docs.py` and celery_stargate/lanes/lane.py.", 0),
        ("see `celery_stargate/lane_owner.py`", 1),
    ],
)
def test_names_of_files_are_checked(text: str, problems: int) -> None:
    """A module that was moved is found."""
    assert len(list(check_docs.check_files(check_docs.ROOT / "README.md", text))) == problems


@pytest.mark.parametrize(
    ("line", "problems"),
    [
        ("the context is given up after … s…", 0),
        ("stargate_url is not set", 0),
        ("the effects of … were eaten by a dog", 1),
    ],
)
def test_quoted_log_lines_are_checked(line: str, problems: int) -> None:
    """What nobody logs any more is found."""
    text = f"## The worker's log\n\n| Line | Meaning |\n|---|---|\n| `{line}` | It is so. |\n"
    assert len(list(check_docs.check_quotes(text))) == problems


def test_explained_lines_are_checked() -> None:
    """An explanation of a line that was changed is found, before anyone runs all mutants."""
    file = "celery_stargate/pulsar/window.py"
    known = {"file": file, "why": "", "changes": [["self._bytes += len(entry.frame)", "pass"]]}
    assert not list(check_docs.check_survivors([known]))
    gone = {"file": file, "why": "", "changes": [["self._bytes += 2 * len(frame)", "pass"]]}
    assert len(list(check_docs.check_survivors([gone]))) == 1
