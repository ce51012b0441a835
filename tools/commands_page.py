"""Write what the commands say of themselves into docs/commands.md: `python -m tools.commands_page`.

The page has marks: `<!-- help: status -->` before a block that gets the command's own help, and
`<!-- json: LaneView -->` before a table that gets the fields of its JSON form. With `--check`
nothing is written, and a page that is not up to date is an error.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from click.testing import CliRunner

from celery_stargate.cli.main import stargate
from celery_stargate.operations.actions import Change
from celery_stargate.operations.dead_views import (
    DeadLetterChange,
    DeadLetterDetail,
    DeadLetterGroup,
    DeadLetterTotals,
    DeadLetterView,
)
from celery_stargate.operations.doctor.finding import Finding
from celery_stargate.operations.views import (
    ContextDetail,
    ContextView,
    LaneView,
    Rates,
    StatusView,
    TopView,
    WorkerView,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
FORMS: dict[str, type[msgspec.Struct]] = {
    each.__name__: each
    for each in (
        Change,
        ContextDetail,
        ContextView,
        DeadLetterChange,
        DeadLetterDetail,
        DeadLetterGroup,
        DeadLetterTotals,
        DeadLetterView,
        Finding,
        LaneView,
        Rates,
        StatusView,
        TopView,
        WorkerView,
    )
}
_HELP = re.compile(r"^<!-- help: ([\w ]+) -->\n```text\n.*?^```$", re.MULTILINE | re.DOTALL)
_JSON = re.compile(r"^<!-- json: (\w+) -->\n(?:\|.*\n)*", re.MULTILINE)


def help_of(name: str) -> str:
    """Return what a command says of itself, 80 columns wide."""
    result = CliRunner().invoke(
        stargate, [*name.split(), "--help"], prog_name="celery -A shop stargate", terminal_width=80
    )
    if result.exit_code:
        raise SystemExit(f"there is no command {name!r}: {result.output}")
    return result.output.rstrip()


def fields_of(form: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    """Return name, type and comment of each field of a struct, its base's first."""
    for base in reversed(form.__mro__):
        if not issubclass(base, msgspec.Struct) or base is msgspec.Struct:
            continue
        lines = inspect.getsource(base).splitlines()
        [declared] = ast.parse("\n".join(lines)).body
        assert isinstance(declared, ast.ClassDef)
        for node in declared.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id, _type(ast.unparse(node.annotation)), _comment(lines, node)


def _comment(lines: list[str], node: ast.AnnAssign) -> str:
    words: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        text = line.strip()
        if not text.startswith("#:"):
            break
        words.insert(0, text.removeprefix("#:").strip())
    return " ".join(words).replace("``", "`")


def _type(annotation: str) -> str:
    names = {
        "str": "text",
        "int": "integer",
        "float": "number",
        "bool": "true or false",
        "None": "null",
        "list[dict[str, Any]]": "list of objects",
        "ContextState": "text",
        "DeadResult": "text",
        "list[DeadLetterGroup]": "list of objects",
        "list[LaneView]": "list of objects",
        "Changed": "text",
        "Level": "text",
    }
    return " or ".join(names.get(part, part) for part in annotation.split(" | "))


def table_of(form: type[msgspec.Struct]) -> str:
    """Return the fields of a JSON form as a table."""
    rows = [f"| `{name}` | {kind} | {text} |" for name, kind, text in fields_of(form)]
    return "\n".join(["| Field | Type | Meaning |", "|---|---|---|", *rows])


def written(page: str) -> str:
    """Return the page with all its marks filled."""

    def fill_help(found: re.Match[str]) -> str:
        return f"<!-- help: {found[1]} -->\n```text\n{help_of(found[1])}\n```"

    def fill_json(found: re.Match[str]) -> str:
        return f"<!-- json: {found[1]} -->\n{table_of(FORMS[found[1]])}\n"

    return _JSON.sub(fill_json, _HELP.sub(fill_help, page))


def missing(page: str) -> list[str]:
    """Return the commands and JSON forms that the page does not have."""
    commands = {name for name, _ in all_commands(stargate, "")}
    return sorted(
        (commands - {found[1] for found in _HELP.finditer(page)})
        | (set(FORMS) - {found[1] for found in _JSON.finditer(page)})
    )


def all_commands(group: Any, before: str) -> Iterator[tuple[str, click.Command]]:
    """Return the names of all commands, with the groups that they are in."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def main(arguments: list[str]) -> int:
    """Write the page, or check it; return the exit code."""
    page = PAGE.read_text("utf-8")
    if absent := missing(page):
        print(f"{PAGE.name} does not have: {', '.join(absent)}", file=sys.stderr)
        return 1
    new = written(page)
    if arguments == ["--check"]:
        if new != page:
            print(f"{PAGE.name} is old: run python -m tools.commands_page", file=sys.stderr)
        return int(new != page)
    PAGE.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
