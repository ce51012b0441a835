"""How a report is written for people."""

from __future__ import annotations

from typing import Any

import click
import pytest

from celery_stargate.cli.changes import choice_options
from celery_stargate.cli.dead import _filter_options
from celery_stargate.cli.describe import _lines
from celery_stargate.cli.questions import _deadline


@pytest.mark.parametrize(
    ("part", "lines"),
    [
        ("text", ["text"]),
        (5, ["5"]),
        ({"a": 1, "b": None, "c": {}, "d": []}, ["a: 1", "b: -", "c: -", "d: -"]),
        ({"a": {"b": 1}}, ["a:", "  b: 1"]),
        ({"a": [1, {"b": 2, "c": 3}]}, ["a:", "  - 1", "  - b: 2", "    c: 3"]),
        ([], []),
    ],
)
def test_the_lines_of_a_report(part: Any, lines: list[str]) -> None:
    """What is inside stands further in; what is empty is a stroke."""
    assert list(_lines(part)) == lines


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "-"), (-120.0, "passed 2m 00s ago"), (90.0, "in 1m 30s")]
)
def test_a_deadline_in_words(seconds: float | None, words: str) -> None:
    """One that has passed, one to come, and none."""
    assert _deadline(seconds) == words


def test_the_options_of_commands_that_change_something() -> None:
    """All have the same, and filters of their own."""

    @click.command()
    @choice_options("contexts", click.option("--topic"))
    def command(**given: Any) -> None: ...

    names = {each.name for each in command.params}
    assert {"contexts", "topic", "everything", "dry_run", "yes"} <= names
    argument = next(each for each in command.params if each.name == "contexts")
    assert argument.make_metavar(click.Context(command)) == "[CONTEXT]..."


def test_the_filters_of_dead_letters() -> None:
    """Are the same for each command."""

    @click.command()
    @_filter_options
    def command(**given: Any) -> None: ...

    assert {each.name for each in command.params} == {"topic", "error", "older_than"}
