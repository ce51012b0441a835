"""What commands that change something share: what is meant, the question, the table, the end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import click

from celery_stargate.cli.command import json_option
from celery_stargate.cli.output import Column, Output
from celery_stargate.cli.standard_input import confirm

__all__ = ["Changes", "choice_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Row(Protocol):
    """What became of one thing."""

    @property
    def result(self) -> Any:
        """A member of an enum."""


_Change = TypeVar("_Change", bound=_Row)


def choice_options(argument: str, *filters: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Give a command names, or filters that choose what it is about.

    Arguments:
        argument: the names' parameter, such as ``contexts``.
        filters: add the options that filter.
    """
    one = argument.upper().removesuffix("S")
    decorators: list[Callable[[Any], Any]] = [
        click.argument(argument, nargs=-1, metavar=f"[{one}]..."),
        *filters,
        click.option("--all", "everything", is_flag=True, help="All that the filters choose."),
        click.option("--dry-run", is_flag=True, help="Only say which these are."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        json_option,
    ]

    def give(command: _Command) -> _Command:
        for decorate in decorators:
            command = decorate(command)
        return command

    return give


@dataclass(frozen=True, kw_only=True)
class Changes(Generic[_Change]):
    """Changes of things of one kind.

    Arguments:
        noun: the things, for people: ``contexts``.
        names: what names of them are called: ``contexts``, ``ids``.
        field: what the documented JSON form calls the name of one: ``context``, ``id``.
        meaning: each result, for people.
        done: the result that is no failure.
        more: columns beside name and result.
        empty: what to say if there is none.
    """

    noun: str
    names: str
    field: str
    meaning: Mapping[Any, str]
    done: Enum
    more: Sequence[Column[_Change]] = ()
    empty: str

    def check(self, names: Collection[str], *, filtered: bool, everything: bool) -> None:
        """Check that it is clear which are meant.

        Raises:
            click.UsageError: it is not.
        """
        if names and (filtered or everything):
            raise click.UsageError(f"give {self.names} or filters, not both")
        if filtered and not everything:
            raise click.UsageError("give --all, too, if you mean all that the filters choose")
        if not names and not everything:
            raise click.UsageError(f"give {self.names}, or --all with filters")

    def rehearse(self, output: Output, names: Iterable[str]) -> None:
        """Say which these are, each when it is found: the first of many is there at once."""
        count = 0
        for name in names:
            output.line({self.field: name}, name)
            count += 1
        click.echo(f"{count} {self.noun}; nothing was changed.", err=True)

    def ask(self, verb: str, names: Sequence[str]) -> None:
        """Ask whether to go on.

        Arguments:
            verb: what would be done, for people.

        Raises:
            click.Abort: the answer was no.
            click.UsageError: nobody can answer.
        """
        if names:
            named = ", ".join(islice(names, 3)) + (", …" if len(names) > 3 else "")
            confirm(f"{verb} {len(names)} {self.noun} ({named})?")

    def tell(self, output: Output, changes: Iterable[_Change]) -> tuple[int, int]:
        """Tell of changes as they are made; return how many there are, and how many failed."""
        failed = 0

        def counted() -> Iterator[_Change]:
            nonlocal failed
            for change in changes:
                failed += change.result is not self.done
                yield change

        columns: list[Column[_Change]] = [
            Column(self.field.upper(), lambda row: str(getattr(row, self.field))),
            Column(
                "RESULT",
                lambda row: self.meaning[row.result],
                colour=lambda row: "green" if row.result is self.done else "yellow",
            ),
            *self.more,
        ]
        return output.rows(columns, counted(), self.empty), failed
