"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import Any, Generic, TypeVar

import click
import msgspec

__all__ = ["Column", "Output", "clip", "printable"]

_Row = TypeVar("_Row")

#: How many rows are laid out together; the first of them appear without waiting for the last.
_PAGE = 200
#: A column is not made narrower than this.
_NARROWEST = 12


@dataclass(frozen=True)
class Column(Generic[_Row]):
    """One column of a table."""

    title: str
    text: Callable[[_Row], str]
    #: Numbers and durations stand at the right.
    right: bool = False
    #: Returns the colour of a cell; None for the terminal's own.
    colour: Callable[[_Row], str | None] = lambda row: None
    #: Where a text is too long for the terminal, this column is shortened.
    shrinks: bool = False


class Output:
    """Prints what a command found.

    Arguments:
        as_json: print JSON: one object a line for a list, else one object.
        no_color: the user wants none; ``NO_COLOR`` says so, too.
    """

    def __init__(self, *, as_json: bool = False, no_color: bool = False) -> None:
        self.as_json = as_json
        self.colour = not no_color and not os.environ.get("NO_COLOR") and sys.stdout.isatty()

    def object(self, value: Any) -> None:
        """Print one object as JSON."""
        click.echo(msgspec.json.format(_encoded(value), indent=2).decode())

    def line(self, value: Any, text: str) -> None:
        """Print one line: an object of a list as JSON, or a text for people."""
        click.echo(_encoded(value).decode() if self.as_json else text)

    def rows(self, columns: Sequence[Column[_Row]], rows: Iterable[_Row], empty: str) -> int:
        """Print rows as they come; return how many there were.

        Arguments:
            empty: what to say to people if there is none.
        """
        count = 0
        page: list[_Row] = []
        for row in rows:
            count += 1
            if self.as_json:
                click.echo(_encoded(row).decode())
                continue
            page.append(row)
            if len(page) == _PAGE:
                self._table(columns, page)
                page = []
        if page:
            self._table(columns, page)
        if not count and not self.as_json:
            click.echo(empty)
        return count

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Print names and values, one pair a line."""
        known = list(pairs)
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            click.echo(f"{self.style(name.ljust(width), 'cyan')}  {printable(value)}")

    def say(self, text: str = "", colour: str | None = None, *, error: bool = False) -> None:
        """Print a line for people."""
        click.echo(self.style(text, colour), err=error)

    def style(self, text: str, colour: str | None) -> str:
        """Return a text in a colour, where colours are wanted."""
        return click.style(text, fg=colour) if colour and self.colour else text

    def _table(self, columns: Sequence[Column[_Row]], rows: Sequence[_Row]) -> None:
        cells = [[printable(column.text(row)) for column in columns] for row in rows]
        widths = [
            max(len(column.title), *(len(line[place]) for line in cells))
            for place, column in enumerate(columns)
        ]
        if sys.stdout.isatty():
            _fit(widths, [column.shrinks for column in columns], get_terminal_size().columns)
        titles = (_aligned(c.title, w, c.right) for c, w in zip(columns, widths, strict=True))
        click.echo(self.style("  ".join(titles).rstrip(), "cyan"))
        for row, line in zip(rows, cells, strict=True):
            parts = (
                self.style(_aligned(clip(text, width), width, column.right), column.colour(row))
                for column, text, width in zip(columns, line, widths, strict=True)
            )
            click.echo("  ".join(parts).rstrip())


def printable(text: str) -> str:
    """Return a text without control characters: an id or a reason may be anybody's."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _fit(widths: list[int], shrinks: Sequence[bool], columns: int) -> None:
    """Make the widest columns narrower, of those that may be, until the table fits."""
    places = [place for place, may in enumerate(shrinks) if may]
    excess = sum(widths) + 2 * (len(widths) - 1) - columns
    for _ in range(excess):
        widest = max(places, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1


def _encoded(value: Any) -> bytes:
    """Return JSON; numbers have three decimals, because all of them are seconds or rates."""
    return msgspec.json.encode(_rounded(msgspec.to_builtins(value)))


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 3)
        case dict():
            return {name: _rounded(each) for name, each in value.items()}
        case list():
            return [_rounded(each) for each in value]
    return value


def _aligned(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def clip(text: str, width: int) -> str:
    """Return a text cut in the middle to a width: topics differ at their ends."""
    if len(text) <= width:
        return text
    head = max(0, (width - 1) // 3)
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
