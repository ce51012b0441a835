"""Check the pages against the code: `python -m tools.check_docs`.

* A program in a page compiles; one that names a file is that file.
* A link leads to a file and a heading that exist.
* Each page below docs/ is in a table of contents of the site.
* A page says first what it is for.
* Each file, test and setting that a page names exists.
* The settings' page lists exactly the settings, with their defaults.
* Each error and log line in docs/troubleshooting.md is in the code.
* Each line that docs/mutations.toml explains is in its file.
* The benchmarks' figures are those of their JSON files.
* The generated parts are up to date, or say that they are not (tools/generated.py).
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.pages import blocks
from benchmarks.readme import block_of
from celery_stargate.model.dead_letters import DeadLetterBounds
from celery_stargate.model.fields import PREFIX
from celery_stargate.model.fields import TABLE as _TABLE
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from tools import generated
from tools.site.links import included, unlisted

ROOT = Path(__file__).resolve().parent.parent

_BLOCK = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]*))?\)")
_SETTING = re.compile(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \| (.*) \|$", re.MULTILINE)
_TEST = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+(?:::\w+)*))?")
_PROGRAM_LINES = 20
_PURPOSE = re.compile(r"(?:Read|Look up|Follow|Run|Use) ")
_SETTING_NAME = re.compile(r"(?<![\w`.-])`?(stargate_[a-z_]+[a-z])\b(?![-/.\w*])")
_FILES = r"[\w./-]+\.(?:py|lua|md|toml|json)"
_FILE = re.compile(
    rf"(?<![\w/.])((?:celery_stargate|tests|tools|benchmarks|examples|docs)/{_FILES})\b"
)
#: In docs/architecture.md, whose paths begin below the package.
_MODULE = re.compile(r"`((?:\w+/)+\w+\.py)`")
_QUOTE = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
_SECTION = re.compile(r"^## (.*)\n((?:(?!## ).*\n)*)", re.MULTILINE)


def pages() -> list[Path]:
    """Return the pages, those of other programs' folders left out."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def check_programs(page: Path, text: str) -> Iterator[str]:
    """Find programs that do not compile, or differ from the file that they name."""
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
            yield f"the program differs from {file}, which it names"
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


def check_purpose(page: Path, text: str) -> Iterator[str]:
    """Find pages whose first sentence does not say what they are for."""
    title = re.match(r"# .+\n\n", text)
    if page.name in {"README.md", "index.md"} and page.parent in {ROOT, ROOT / "docs"}:
        # They say what the project is.
        return
    if included(text) is None and not (title and _PURPOSE.match(text, title.end())):
        yield 'the first sentence must say what the page is for: "Read this page to …", "Look up …"'


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


def check_files(page: Path, text: str) -> Iterator[str]:
    """Find names of files that do not exist."""
    for file in sorted(set(_FILE.findall(text))):
        if not (ROOT / file).is_file():
            yield f"{file} does not exist"
    if page == ROOT / "docs" / "architecture.md":
        for module in sorted(set(_MODULE.findall(text))):
            if not (ROOT / "celery_stargate" / module).is_file():
                yield f"celery_stargate/{module} does not exist"


@cache
def _other_names() -> frozenset[str]:
    """Return the names that look like settings: metrics, remote control, outbox, fixtures."""
    package = ROOT / "celery_stargate"
    names = ("instrumentation", "contrib", "worker", "testing")
    folders = (*(package / name for name in names), ROOT / "pytest_celery_stargate")
    texts = (path.read_text("utf-8") for folder in folders for path in folder.rglob("*.py"))
    commands = (package / "contrib").rglob("management/commands/*.py")
    found = {name for text in texts for name in re.findall(r"\bstargate_\w+", text)}
    # prometheus_client adds the suffix of counters.
    counters = (f"{name}_total" for name in found)
    return frozenset({*found, *counters, *(path.stem for path in commands)})


def check_setting_names(text: str) -> Iterator[str]:
    """Find names of settings that do not exist."""
    known = {PREFIX + name for name in _TABLE} | _other_names()
    for name in sorted(set(_SETTING_NAME.findall(text)) - known):
        yield f"there is no setting {name}"


@cache
def _texts() -> tuple[str, ...]:
    """Return every text in the package's code, with … for each value that is put into it."""
    found: list[str] = []
    for path in (ROOT / "celery_stargate").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Constant(value=str() as text):
                    found.append(re.sub(r"%[-+.\d]*[a-z]", "…", text))
                case ast.JoinedStr(values=values):
                    found.append("".join(_shown(each) for each in values))
    return tuple(found)


def _shown(part: ast.expr) -> str:
    match part:
        case ast.Constant(value=str() as text):
            return text
        case ast.FormattedValue(value=ast.Name(id="PREFIX")):
            return PREFIX
    return "…"


def check_quotes(text: str) -> Iterator[str]:
    """Find errors and log lines that the code does not have, in the tables that quote them."""
    for title, section in _SECTION.findall(text):
        if "`ConfigurationError`" not in title and "log" not in title:
            continue
        for quote in sorted(set(_QUOTE.findall(section))):
            pattern = re.compile(".*".join(re.escape(part) for part in quote.split("…")))
            if not any(pattern.search(each) for each in _texts()):
                yield f"no error and no log line reads {quote!r}"


def check_survivors(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Find explanations in docs/mutations.toml of lines that the code does not have."""
    for row in rows:
        path = ROOT / row["file"]
        if not path.is_file():
            yield f"{row['file']} does not exist"
            continue
        text = path.read_text("utf-8")
        if path.suffix == ".py":
            # As tools/mutate.py shows it.
            text = ast.unparse(ast.parse(text))
        text = " ".join(text.split())
        for before, _ in row["changes"]:
            if before not in text:
                yield f"{row['file']} has no line {before!r}"


def _without_measured(text: str) -> str:
    """Return a page without what was measured: that names the code of its day."""
    for name in ("measured", "sources", "state", "profile"):
        text = re.sub(rf"<!-- {name}:begin -->.*?<!-- {name}:end -->", "", text, flags=re.DOTALL)
    return text


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
        if name == "dead_letters":
            # It is given as True, and read as the bounds.
            value = value == DeadLetterBounds()
        shown = "none" if value is None else f"`{value}`"
        if default.strip() != shown:
            yield f"the default of {PREFIX}{name} is {shown}, not {default.strip()}"
        under_query = setting.parameter is not None
        if setting.of_topic != (under_query or "*Per topic.*" in meaning or "with_keys" in name):
            yield f"{PREFIX}{name}: *Per topic.* is missing, or does not belong there"


def check_figures(text: str, named: Mapping[str, str]) -> Iterator[str]:
    """Compare the measured parts of a page with what the runs' JSON says."""
    for name, block in named.items():
        try:
            found = block_of(text, name)
        except ValueError as error:
            yield str(error)
            continue
        if found != block:
            yield (
                f"the block {name or 'benchmark'} differs from benchmarks/results: run "
                "`python -m benchmarks.pages`"
            )


def problems() -> Iterator[tuple[Path, str]]:
    """Return all that is wrong, with the page where it stands."""
    measured = blocks()
    for page in pages():
        text = page.read_text("utf-8")
        today = _without_measured(text)
        checks = [check_programs(page, text), check_links(page, text), check_tests(today)]
        checks += [check_files(page, today), check_purpose(page, text)]
        if page.name != "CHANGELOG.md":
            checks.append(check_setting_names(today))
        if page == ROOT / "docs" / "troubleshooting.md":
            checks.append(check_quotes(text))
        if page == ROOT / "docs" / "settings.md":
            checks.append(check_settings(text))
        if page in measured:
            checks.append(check_figures(text, measured[page]))
        for check in checks:
            for problem in check:
                yield page, problem
    for name in unlisted():
        problem = "no {toctree} lists it: add it to docs/howto/index.md, or to another section"
        yield ROOT / "docs" / f"{name}.md", problem
    survivors = ROOT / "docs" / "mutations.toml"
    for problem in check_survivors(tomllib.loads(survivors.read_text("utf-8"))["survivors"]):
        yield survivors, problem
    yield from generated.problems()


def main() -> int:
    """Print what is wrong; 1 when something is."""
    found = list(problems())
    for page, problem in found:
        print(f"{page.relative_to(ROOT)}: {problem}", file=sys.stderr)
    for warning in generated.warnings():
        print(warning)
    if not found:
        print(f"{len(pages())} pages agree with the code")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
