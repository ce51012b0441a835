"""Durations as arguments and in tables."""

from __future__ import annotations

import click
import pytest

from celery_stargate.cli.durations import DURATION, format_age, format_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), (" 30s", 30.0), ("1.5h", 5400.0), ("2w", 1_209_600.0), (2, 2.0)],
)
def test_reads_a_number_with_a_unit(text: object, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "m", "5x", "-5s", "1h30m", "inf", "٣s"])
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="30s, 5m, 2h, 7d or 2w"):
        DURATION.convert(text, None, None)


def test_refuses_what_is_too_long() -> None:
    """Python's clocks and Redis' do not take it."""
    with pytest.raises(click.BadParameter, match="999999999d' is too long"):
        DURATION.convert("999999999d", None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.04, "0.0s"),
        (-0.01, "0.0s"),
        (9.94, "9.9s"),
        (59.4, "59s"),
        (59.6, "59s"),
        (60.0, "1m 00s"),
        (3599.7, "59m 59s"),
        (-61.0, "-1m 01s"),
        (86_399.9, "23h 59m"),
        (86_400.0, "1d 00h"),
        (200_000.0, "2d 07h"),
    ],
)
def test_shows_at_most_two_units(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


def test_marks_an_age_that_is_computed() -> None:
    assert format_age(61.0, exact=True) == "1m 01s"
    assert format_age(61.0, exact=False) == "~1m 01s"
    assert format_age(None, exact=False) == "-"
