"""Tables for people, JSON for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from celery_stargate.cli.output import Column, Output, clip

_COLUMNS: list[Column[dict[str, Any]]] = [
    Column("NAME", lambda row: row["name"], colour=lambda row: "red"),
    Column("COUNT", lambda row: str(row["count"]), right=True),
]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_aligns_columns_of_text_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "orders", "count": 7}, {"name": "a", "count": 12_345}]
    assert Output().rows(_COLUMNS, rows, "none") == 2
    assert capsys.readouterr().out.splitlines() == [
        "NAME    COUNT",
        "orders      7",
        "a       12345",
    ]


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.rows(_COLUMNS, [{"name": "a\x1b[2J\nb", "count": 1}], "none")
    output.facts([("reason", "c\x07d")])
    assert capsys.readouterr().out.splitlines()[1:] == ["a?[2J?b      1", "reason  c?d"]


def test_says_that_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert Output().rows(_COLUMNS, [], "There are no lanes.") == 0
    assert capsys.readouterr().out == "There are no lanes.\n"


def test_prints_one_json_object_a_line_and_nothing_for_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output(as_json=True)
    output.rows(_COLUMNS, [{"name": "a", "count": 1}, {"name": "b", "count": 2}], "none")
    output.rows(_COLUMNS, [], "none")
    assert [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()] == ["a", "b"]


def test_prints_the_first_page_before_the_last_row_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[str] = []

    def rows() -> Iterator[dict[str, Any]]:
        for count in range(201):
            if count == 200:
                seen.append(capsys.readouterr().out)
            yield {"name": "row", "count": count}

    Output().rows(_COLUMNS, rows(), "none")
    assert seen[0].splitlines()[-1].endswith("199")


@pytest.mark.parametrize(
    ("no_color", "variable", "coloured"),
    [(False, "", True), (True, "", False), (False, "1", False)],
)
def test_colours_on_a_terminal_only_and_never_with_no_color(
    monkeypatch: pytest.MonkeyPatch, no_color: bool, variable: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", variable)
    monkeypatch.setattr(sys, "stdout", _Terminal())
    assert Output(no_color=no_color).colour is coloured
    assert ("\x1b" in Output(no_color=no_color).style("text", "red")) is coloured
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not Output().colour


def test_a_terminal_gets_a_table_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    columns = [Column[str]("LANE", lambda row: row, shrinks=True), _number("BACKLOG")]
    Output().rows(columns, ["persistent://public/default/" + "x" * 60 + "/orders#0", "a"], "none")
    assert terminal.getvalue().splitlines() == [
        f"{'LANE':31}  BACKLOG",
        f"persistent…{'x' * 11}/orders#0       17",
        f"{'a':31}       17",
    ]


def _number(title: str) -> Column[str]:
    return Column(title, lambda row: "17", right=True)


def test_cuts_a_long_text_in_the_middle() -> None:
    assert clip("persistent://public/default/orders", 16) == "persi…ult/orders"
    assert clip("orders", 16) == "orders"
    assert len(clip("x" * 100, 9)) == 9


def test_the_widest_columns_are_cut_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lanes of a terminal of 80 columns: neither the lane nor its owner takes all the room."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    columns = [
        Column[str]("LANE", lambda row: "persistent://public/default/orders#0", shrinks=True),
        Column[str]("OWNER", lambda row: "paused by somebody@host", shrinks=True),
        *(_number(title) for title in ("BACKLOG", "UNSENT", "SENT", "SETTLED")),
        Column[str]("OLDEST", lambda row: "~15s"),
        Column[str]("DEADLINE", lambda row: "23h 59m"),
    ]
    Output().rows(columns, ["a"], "none")
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "#0 " in lines[1]
