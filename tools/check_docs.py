"""Check that the pages say what is so: `python -m tools.check_docs`.

Programs compile, and those that name a file are that file; links lead somewhere; the settings'
page lists exactly the settings with their defaults; the benchmark's tables are those of its JSON;
each test that a page names exists.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from benchmarks.pages import blocks
from benchmarks.readme import block_of
from celery_stargate.model.fields import PREFIX
from celery_stargate.model.fields import TABLE as _TABLE
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings

ROOT = Path(__file__).resolve().parent.parent

_BLOCK = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]*))?\)")
_SETTING = re.compile(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \| (.*) \|$", re.MULTILINE)
_TEST = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+(?:::\w+)*))?")
_PROGRAM_LINES = 20


def pages() -> list[Path]:
    """Return the pages, those of other programs' folders left out."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def check_programs(page: Path, text: str) -> Iterator[str]:
    """Find programs that do not compile, or are not the file that they name."""
    for found in _BLOCK.finditer(text):
        code, file = found["code"], found["file"]
        try:
            # A line of an example may await.
            compile(code, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError as error:
            yield f"a program does not compile: {error}"
        if file is None:
            continue
        path = ROOT / file
        if not path.is_file():
            yield f"{file} does not exist"
        elif path.read_text("utf-8") != code:
            yield f"the program is not {file}, which it says it is"
        if page.name == "README.md" and code.count("\n") > _PROGRAM_LINES:
            yield f"{file} has more than {_PROGRAM_LINES} lines"


def check_links(page: Path, text: str) -> Iterator[str]:
    """Find links to files or headings that are not there."""
    for file, anchor in _LINK.findall(text):
        target = (page.parent / file) if file else page
        if not target.exists():
            yield f"the link to {file} leads nowhere"
        elif anchor and anchor not in _anchors(target.read_text("utf-8")):
            yield f"the link to {file}#{anchor} finds no such heading"


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def check_tests(text: str) -> Iterator[str]:
    """Find names of tests that do not exist."""
    for file, name in sorted(set(_TEST.findall(text))):
        path = ROOT / file
        if not path.is_file():
            # The pages explain how paths are made with one that stands for all.
            if name:
                yield f"{file} does not exist"
            continue
        if name and name not in _tests(ast.parse(path.read_text("utf-8"))):
            yield f"{file} has no test {name}"


def _tests(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Return the names of tests as pytest writes them: those in a class after the class."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{name}" for name in _tests(node))


def defaults() -> dict[str, object]:
    """Return each setting's default, by its name."""
    found: dict[str, object] = {}
    for kind in (ProducerOptions, Settings):
        for each in fields(kind):
            if each.name in _TABLE:
                found[each.name] = getattr(kind(), each.name)
    return found


def check_settings(text: str) -> Iterator[str]:
    """Compare the settings' page with the settings."""
    rows = {name: (default, meaning) for name, _, default, meaning in _SETTING.findall(text)}
    known = defaults()
    for name in _TABLE.keys() - known.keys():
        yield f"{PREFIX}{name} has no default"
    for name in sorted(rows.keys() - {PREFIX + each for each in _TABLE}):
        yield f"there is no setting {name}"
    for name, setting in _TABLE.items():
        row = rows.get(PREFIX + name)
        if row is None:
            yield f"{PREFIX}{name} is not described"
            continue
        default, meaning = row
        value = known[name]
        shown = "none" if value is None else f"`{value}`"
        if default.strip() != shown:
            yield f"the default of {PREFIX}{name} is {shown}, not {default.strip()}"
        under_query = setting.parameter is not None
        if setting.of_topic != (under_query or "*Per topic.*" in meaning or "with_keys" in name):
            yield f"{PREFIX}{name}: *per topic* is said wrongly"


def check_figures(text: str, named: Mapping[str, str]) -> Iterator[str]:
    """Compare the measured parts of a page with what the runs' JSON says."""
    for name, block in named.items():
        try:
            found = block_of(text, name)
        except ValueError as error:
            yield str(error)
            continue
        if found != block:
            yield f"the figures {name or 'here'} are not those of benchmarks/results; `make bench`"


def problems() -> Iterator[tuple[Path, str]]:
    """Return all that is wrong, with the page where it stands."""
    measured = blocks()
    for page in pages():
        text = page.read_text("utf-8")
        checks = [check_programs(page, text), check_links(page, text), check_tests(text)]
        if page == ROOT / "docs" / "settings.md":
            checks.append(check_settings(text))
        if page in measured:
            checks.append(check_figures(text, measured[page]))
        for check in checks:
            for problem in check:
                yield page, problem


def main() -> int:
    """Print what is wrong; 1 when something is."""
    found = list(problems())
    for page, problem in found:
        print(f"{page.relative_to(ROOT)}: {problem}", file=sys.stderr)
    if not found:
        print(f"{len(pages())} pages say what is so")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
