"""Hold the bounds of modules and classes: `python -m tools.check_shape`.

A module of the package has at most 450 lines. A class has at most 15 methods, public and private
ones together, special methods and overloads left out; one that has more says why, in its docstring
or in a comment above it, in words that hold "more methods than".

Exits with 1 when one is above its bound.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = _ROOT / "celery_stargate"

MAX_LINES, MAX_METHODS = 450, 15
_REASON = "more methods than"


def find_faults(name: str, source: str) -> Iterator[str]:
    """Yield what is wrong with the shape of one module.

    Arguments:
        name: the module's, for the text.
        source: its code.
    """
    lines = source.splitlines()
    if len(lines) > MAX_LINES:
        yield f"{name}: {len(lines)} lines; at most {MAX_LINES} are wanted: split it"
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        count = len(set(_methods(node)))
        if count > MAX_METHODS and not _gives_reason(node, lines):
            yield (
                f"{name}: class {node.name} has {count} methods; at most {MAX_METHODS} are wanted: "
                f'split it, or write why it has "{_REASON} a class should"'
            )


def _methods(node: ast.ClassDef) -> Iterator[str]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not (
            each.name.startswith("__") and each.name.endswith("__")
        ):
            yield each.name


def _gives_reason(node: ast.ClassDef, lines: list[str]) -> bool:
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    above: list[str] = []
    for line in reversed(lines[: first - 1]):
        if not line.lstrip().startswith("#"):
            break
        above.insert(0, line.strip(" #"))
    text = " ".join([*above, ast.get_docstring(node) or ""])
    return _REASON in " ".join(text.split())


def main() -> int:
    """Print what is wrong; return 1 if anything is."""
    faults = [
        fault
        for path in sorted(_PACKAGE.rglob("*.py"))
        for fault in find_faults(str(path.relative_to(_ROOT)), path.read_text("utf-8"))
    ]
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
