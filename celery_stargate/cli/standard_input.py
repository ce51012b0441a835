"""Standard input, which may be closed: ``<&-``, or a service manager that gives none."""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import click

__all__ = ["InputFile", "confirm", "standard_input"]

_CLOSED = "standard input is closed"


def standard_input(instead: str) -> BinaryIO:
    """Return standard input.

    Arguments:
        instead: what to give in its place, for the text of the error.

    Raises:
        click.UsageError: it is closed.
    """
    # Python's types do not have it.
    stream: Any = sys.stdin
    if stream is None:
        raise click.UsageError(f"{_CLOSED}; give {instead}")
    found: BinaryIO = stream.buffer
    return found


def confirm(question: str) -> None:
    """Ask whether to go on.

    Raises:
        click.Abort: the answer was no.
        click.UsageError: nobody can answer.
    """
    standard_input("--yes, and nothing is asked")
    click.confirm(question, abort=True, err=True)


class InputFile(click.File):
    """A file to read, in bytes; ``-`` is standard input."""

    def __init__(self) -> None:
        super().__init__("rb")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Open it.

        Raises:
            click.UsageError: it cannot be read.
        """
        if value == "-":
            return standard_input("the name of a file")
        return super().convert(value, param, ctx)
