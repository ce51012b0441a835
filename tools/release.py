"""Check and describe a release: ``python -m tools.release check v0.2.0``, ``… notes``.

The version is that of pyproject.toml (docs/project/releasing.md says why). The tag must equal it,
and the changelog must have a section for it with a date.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["notes", "problems", "version"]

ROOT = Path(__file__).resolve().parent.parent


def version(root: Path = ROOT) -> str:
    """Return the version in pyproject.toml."""
    found: str = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    return found


def _section(root: Path) -> tuple[str, str] | None:
    """Return the heading's rest and the text of the version's section of the changelog."""
    text = (root / "CHANGELOG.md").read_text("utf-8")
    found = re.search(
        rf"^## \[{re.escape(version(root))}\](.*)\n((?:(?!## ).*\n?)*)", text, re.MULTILINE
    )
    return None if found is None else (found[1], found[2].strip())


def problems(tag: str, root: Path = ROOT) -> Iterator[str]:
    """Return what keeps a tag from being released."""
    if tag != f"v{version(root)}":
        yield f"the tag is {tag} and pyproject.toml has the version {version(root)}"
    section = _section(root)
    if section is None:
        yield f"CHANGELOG.md has no section for {version(root)}"
    elif not re.fullmatch(r" - \d{4}-\d{2}-\d{2}", section[0]):
        yield f"the section of CHANGELOG.md has no date: {section[0].strip(' -') or 'nothing'}"
    elif not section[1]:
        yield "the section of CHANGELOG.md is empty"


def notes(root: Path = ROOT) -> str:
    """Return the notes of the release: the version's section of the changelog.

    Raises:
        ValueError: there is none.
    """
    section = _section(root)
    if section is None:
        raise ValueError(f"CHANGELOG.md has no section for {version(root)}")
    return section[1] + "\n"


def main() -> int:
    """Run a command; 1 when the tag cannot be released."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="check a tag").add_argument("tag")
    commands.add_parser("notes", help="print the notes")
    arguments = parser.parse_args()
    if arguments.command == "notes":
        print(notes(), end="")
        return 0
    found = list(problems(arguments.tag))
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
