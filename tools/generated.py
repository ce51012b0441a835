"""Write and check the parts of the pages that are made from code: ``python -m tools.generated``.

``--write`` renews all of them, ``--check`` (also a part of ``tox -e docs``) fails where one is old.
There are two kinds:

* A **block** is rendered from the code in milliseconds, such as the package's tree in
  CONTRIBUTING.md. It must equal what would be rendered now.
* A **measured page** takes minutes to make, such as docs/mutations.md. It ends with a fingerprint
  of each source that it was measured from. Where a source has changed since, the page must say so
  in its own text. ``--write`` puts that sentence there, so a commit never waits for a measurement,
  and no page passes for newer than it is. The command that measures calls :func:`record`.

A fingerprint covers code only: comments, docstrings and blank lines do not make a page old.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import importlib.util
import inspect
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import ModuleType

from benchmarks.readme import block_of, replace_block
from tools.support_matrix import render_support

__all__ = ["BLOCKS", "MEASURED", "fingerprint", "fingerprints", "problems", "record"]

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "celery_stargate"

#: How many changed sources a page names.
_NAMED = 6
#: How wide the names in the package's tree are.
_WIDTH = 28


@dataclass(frozen=True)
class Block:
    """A part of a page, between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``."""

    page: str
    name: str
    render: Callable[[], str]


@dataclass(frozen=True)
class Measured:
    """A page whose block ``measured`` takes long to make."""

    page: str
    #: What measures it, and about how long that takes.
    command: str
    takes: str
    #: Glob patterns of its sources, from the repository's root.
    sources: tuple[str, ...]
    #: Whether only the names of the sources count, and not what is in them.
    names_only: bool = False


# Measured pages.

MEASURED = (
    Measured(
        "docs/mutations.md",
        "python -m tools.mutate",
        "2 hours",
        ("celery_stargate/lanes/**/*.lua", "celery_stargate/pulsar/window.py"),
    ),
    Measured(
        "docs/simulation.md",
        "python -m tests.simulation --write-docs",
        "2 minutes",
        (
            "celery_stargate/delivery/*.py",
            "celery_stargate/lanes/leased.py",
            "celery_stargate/pulsar/s*.py",
            "celery_stargate/pulsar/window.py",
            "celery_stargate/support/*.py",
            "tests/simulation/*.py",
        ),
    ),
    Measured(
        "docs/coverage.md",
        "tox -e full && tox -e coverage -- --write",
        "25 minutes",
        ("celery_stargate/**/*.py",),
        # Figures drift with each change; that they stay high enough is checked where they are made.
        names_only=True,
    ),
)


def fingerprint(path: Path) -> str:
    """Return 12 hexadecimal digits that change when the code of a file does."""
    text = path.read_text("utf-8")
    match path.suffix:
        case ".py":
            text = _python_code(text)
        case ".lua":
            # A string of these scripts holds no dashes.
            text = re.sub(r"--[^\n]*", "", text)
    lines = (line.rstrip() for line in text.splitlines())
    code = "\n".join(line for line in lines if line)
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def _python_code(text: str) -> str:
    """Return a module without its comments and docstrings.

    By positions, and not by the syntax tree's text, which is another for each version of Python.
    """
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            for row in range(first.lineno, (first.end_lineno or first.lineno) + 1):
                lines[row - 1] = ""
    return "\n".join(lines)


def fingerprints(measured: Measured) -> dict[str, str]:
    """Return the fingerprint of each source of a page, by its path."""
    found = sorted({path for pattern in measured.sources for path in ROOT.glob(pattern)})
    return {
        path.relative_to(ROOT).as_posix(): "-" if measured.names_only else fingerprint(path)
        for path in found
        if not path.stem.startswith("__")
    }


def record(page: str, body: str, before: Mapping[str, str]) -> None:
    """Write what was measured into a page.

    Arguments:
        page: its path from the repository's root; one of :data:`MEASURED`.
        body: the block ``measured``.
        before: what :func:`fingerprints` returned before the measurement began.
    """
    path, measured = ROOT / page, measured_page(page)
    text = replace_block(path.read_text("utf-8"), body, "measured")
    text = replace_block(text, _fingerprint_block(before), "sources")
    path.write_text(replace_block(text, _state(text, measured), "state"), "utf-8")


def measured_page(page: str) -> Measured:
    """Return what is known of a measured page."""
    return next(each for each in MEASURED if each.page == page)


def _fingerprint_block(found: Mapping[str, str]) -> str:
    return "\n".join(["<!--", *(f"{value} {path}" for path, value in found.items()), "-->"])


def _state(text: str, measured: Measured) -> str:
    """Return what a page must say of its age."""
    lines = [line.split(" ", 1) for line in block_of(text, "sources").splitlines() if " " in line]
    known = {path: value for value, path in lines}
    now = fingerprints(measured)
    again = f"To measure again: `{measured.command}` (about {measured.takes})."
    if not known:
        return (
            "> **Out of date.** This page was measured on an earlier layout of the code, and shows "
            f"its file names and lines. {again}"
        )
    one, some = ("has changed", "have changed")
    if measured.names_only:
        one, some = ("was added or removed", "were added or removed")
    changed = sorted(path for path in known.keys() | now.keys() if known.get(path) != now.get(path))
    if not changed:
        return f"Up to date: no source {one} since it was measured. {again}"
    named = ", ".join(f"`{path}`" for path in changed[:_NAMED])
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return (
        f"> **Out of date.** {len(changed)} of {len(now)} sources {some} since this page was "
        f"measured: {named}{more}. {again}"
    )


# Blocks.


def _summary(path: Path) -> str:
    """Return the first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.partition("\n")[0].replace("``", "`").removesuffix(".")


def floors() -> list[list[str]]:
    """Return the floors from the top down, as import-linter's contract has them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    return [
        [name.strip().removeprefix("celery_stargate.") for name in layer.split("|")]
        for layer in layers
    ]


def render_floors() -> str:
    """Return the floors as a table: each may import what stands below it."""
    lines = ["| Floor | Modules | May import |", "|---|---|---|"]
    found = floors()
    for place, names in enumerate(found):
        below = "everything below" if place < len(found) - 1 else "nothing of ours"
        shown = ", ".join(f"`{_path(name)}`" for name in names)
        lines.append(f"| {len(found) - place} | {shown} | {below} |")
    return "\n".join(lines)


def _path(name: str) -> str:
    return f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py"


def render_tree() -> str:
    """Return the package's tree, floors from the top down, with each module's first line."""
    lines = ["```text", "celery_stargate/"]
    order = [name for names in floors() for name in names]
    rest = sorted(
        path.stem
        for path in PACKAGE.iterdir()
        if path.stem not in order
        and not path.stem.startswith("__")
        and (path.suffix == ".py" or (path / "__init__.py").is_file())
    )
    for name in ["__init__", *order, *rest]:
        lines += _tree(PACKAGE / name, 1)
    return "\n".join([*lines, "```"])


def _tree(path: Path, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if not path.is_dir():
        path = path.with_suffix(".py")
        yield f"{indent}{path.name:<{_WIDTH - len(indent)}}{_summary(path)}".rstrip()
        return
    name = f"{path.name}/"
    yield f"{indent}{name:<{_WIDTH - len(indent)}}{_summary(path / '__init__.py')}".rstrip()
    if path.name == "local_pulsar":
        # The stand-in for Pulsar is one thing to whoever uses it.
        return
    for each in sorted(path.iterdir(), key=lambda each: (each.is_dir(), each.name)):
        module = each.suffix == ".py" and not each.stem.startswith("__")
        if module or (each / "__init__.py").is_file():
            yield from _tree(each, depth + 1)
    for folder in sorted({script.parent for script in path.glob("lua/*.lua")}):
        count = len(list(folder.rglob("*.lua")))
        name = f"{folder.name}/"
        yield f"{indent}  {name:<{_WIDTH - 2 - len(indent)}}{count} files of Redis scripts"


def render_contexts() -> str:
    """Return the life of a context: its diagram, its states, and the script of each event."""
    module = "celery_stargate.lanes.states"
    return render_machine(module, "TRANSITIONS", outside="ABSENT", events="Script")


def render_machine(module: str, table: str, *, outside: str = "", events: str = "Event") -> str:
    """Return a table of transitions as a diagram, and what its states and events mean.

    Arguments:
        module: where the table is.
        table: its name there: state -> event -> next state, all of them members of enumerations.
        outside: the state that is no state, but beginning and end; else the first one begins.
        events: the head of the events' column.
    """
    if importlib.util.find_spec(module) is None:
        return f"Not here yet: `{module}`."
    transitions: Mapping[Enum, Mapping[Enum, Enum]]
    transitions = getattr(importlib.import_module(module), table)
    known = list(transitions)
    kinds = dict.fromkeys(event for after in transitions.values() for event in after)
    lines = ["```mermaid", "stateDiagram-v2"]
    if not outside:
        lines.append(f"    [*] --> {known[0].name}")
    everywhere = _everywhere(transitions)
    for state, after in transitions.items():
        ends: dict[Enum, list[str]] = {}
        for event, end in after.items():
            if end is not state and event not in everywhere:
                ends.setdefault(end, []).append(str(event.value))
        for end, names in ends.items():
            begin, to = ("[*]" if each.name == outside else each.name for each in (state, end))
            lines.append(f"    {begin} --> {to}: {', '.join(names)}")
        if all(end is state for end in after.values()):
            lines.append(f"    {state.name} --> [*]")
    lines.append("```")
    for event, end in everywhere.items():
        lines += ["", f"From every other state, *{event.value}* leads to {end.name}."]
    said = _comments(sys.modules[module])
    lines += ["", "| State | Meaning |", "|---|---|"]
    lines += [f"| {each.name} | {said[each]} |" for each in known]
    lines += ["", f"| {events} | Meaning |", "|---|---|"]
    lines += [f"| {each.value} | {said[each]} |" for each in type(next(iter(kinds)))]
    return "\n".join(lines)


def _everywhere(transitions: Mapping[Enum, Mapping[Enum, Enum]]) -> dict[Enum, Enum]:
    """Return the events that lead to one and the same state from all others: they are not drawn."""
    found = {}
    for event in {event: None for after in transitions.values() for event in after}:
        ends = {after.get(event) for after in transitions.values()}
        if len(transitions) > 3 and len(ends) == 1 and (end := ends.pop()) is not None:
            found[event] = end
    return found


def _comments(module: ModuleType) -> dict[Enum, str]:
    """Return what the comment behind each member of a module's enumerations says."""
    source = inspect.getsource(module)
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and issubclass(getattr(module, node.name), Enum):
            for each in node.body:
                if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
                    text = lines[each.lineno - 1].partition("#:")[2].strip()
                    member = getattr(module, node.name)[each.targets[0].id]
                    found[member] = text.replace("``", "`")
    return found


def _render_doctor_checks() -> str:
    # It imports the package, which `tools.mutate` must not.
    from tools.doctor_checks import render_doctor_checks

    return render_doctor_checks()


BLOCKS: Sequence[Block] = (
    Block("CONTRIBUTING.md", "floors", render_floors),
    Block("CONTRIBUTING.md", "tree", render_tree),
    Block("docs/project/support.md", "support", render_support),
    Block("docs/reference/doctor.md", "checks", _render_doctor_checks),
    Block("docs/how_it_works.md", "contexts", render_contexts),
    Block(
        "docs/architecture.md",
        "owner",
        partial(render_machine, "celery_stargate.delivery.states", "TRANSITIONS"),
    ),
    Block(
        "docs/architecture.md",
        "lease",
        partial(render_machine, "celery_stargate.delivery.lease", "LEASE_TRANSITIONS"),
    ),
    Block(
        "docs/architecture.md",
        "suspicion",
        partial(render_machine, "celery_stargate.delivery.suspicion", "SUSPICION_TRANSITIONS"),
    ),
)


# The command.


def _wanted() -> Iterator[tuple[str, str, str]]:
    """Yield page, name and text of each block as it must be now."""
    for block in BLOCKS:
        yield block.page, block.name, block.render()
    for measured in MEASURED:
        text = (ROOT / measured.page).read_text("utf-8")
        yield measured.page, "state", _state(text, measured)


def problems() -> Iterator[tuple[Path, str]]:
    """Yield each page that is old, with what is wrong there."""
    for page, name, wanted in _wanted():
        path = ROOT / page
        try:
            found = block_of(path.read_text("utf-8"), name)
        except ValueError as error:
            yield path, str(error)
            continue
        if found != wanted.strip():
            yield path, f"the block {name} is old: run `python -m tools.generated --write`"


def warnings() -> Iterator[str]:
    """Yield each measured page that is out of date, and says so."""
    for measured in MEASURED:
        text = (ROOT / measured.page).read_text("utf-8")
        if (state := _state(text, measured)).startswith(">"):
            yield f"WARNING {measured.page}: {state.removeprefix('> ').replace('**', '')}"


def write() -> list[str]:
    """Renew every block; return the pages that changed."""
    changed = []
    for page, name, wanted in _wanted():
        path = ROOT / page
        text = path.read_text("utf-8")
        renewed = replace_block(text, wanted, name)
        if renewed != text:
            path.write_text(renewed, "utf-8")
            changed.append(page)
    return list(dict.fromkeys(changed))


def main() -> int:
    """Write or check; 1 when a check finds something old."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.generated",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="renew what is old")
    what.add_argument("--check", action="store_true", help="fail where something is old")
    options = parser.parse_args()
    if options.write:
        for page in write():
            print(f"{page}: written")
    found = list(problems())
    for path, problem in found:
        print(f"{path.relative_to(ROOT)}: {problem}", file=sys.stderr)
    for warning in warnings():
        print(warning)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
