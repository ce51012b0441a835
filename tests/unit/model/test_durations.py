"""Durations: what a timeout may be, and the seconds until Celery's `expires`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery

from celery_stargate import InvalidMessage
from celery_stargate.model.durations import (
    LONGEST,
    is_duration,
    parse_duration,
    read_timeout,
    until,
)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(5, 5.0), (0.25, 0.25), (timedelta(minutes=1), 60.0), (1e9, 1e9)],
)
def test_seconds_or_a_timedelta(timeout: Any, seconds: float) -> None:
    assert read_timeout(timeout) == seconds


@pytest.mark.parametrize(
    ("timeout", "words"),
    [
        ("5", "must be seconds or a timedelta, not str"),
        (True, "must be seconds or a timedelta, not bool"),
        (None, "must be seconds or a timedelta, not NoneType"),
        (0, "must be more than 0 and at most 1000000000 seconds, not 0"),
        (timedelta(seconds=-1), "must be more than 0 and at most 1000000000 seconds, not -1.0"),
        (float("inf"), "must be more than 0 and at most 1000000000 seconds, not inf"),
        (1e9 + 1, "must be more than 0 and at most 1000000000 seconds, not 1000000001"),
        pytest.param(10**5000, "at most 1000000000 seconds, not <int>", id="digits"),
        (float("nan"), "must be more than 0 and at most 1000000000 seconds, not nan"),
    ],
)
def test_what_is_no_timeout(timeout: Any, words: str) -> None:
    with pytest.raises(InvalidMessage, match=words):
        read_timeout(timeout)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("5m", 300.0), ("1.5h", 5400.0), ("7d", 604_800.0), ("2w", 1_209_600.0)],
)
@pytest.mark.parametrize("bare", [True, False])
def test_a_duration_as_a_person_writes_it(text: str, seconds: float, bare: bool) -> None:
    assert parse_duration(text, bare=bare) == seconds


def test_a_number_without_a_unit() -> None:
    """Is seconds only where that is clear."""
    assert parse_duration("30", bare=True) == 30.0
    with pytest.raises(ValueError, match="'30' is no duration; write 30s"):
        parse_duration("30", bare=False)


@pytest.mark.parametrize("text", ["999999w", "1654w", "11575d", "1000000001s", "9" * 400 + "d"])
def test_a_duration_that_no_clock_takes(text: str) -> None:
    """Is told as too long."""
    with pytest.raises(ValueError, match="too long; a duration is at most 1000000000 seconds"):
        parse_duration(text, bare=False)


@pytest.mark.parametrize("text", ["inf", "nan", "infs", "-1s", "1e3s", "", "s", "1h30m", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text, bare=True)


def test_a_number_of_seconds() -> None:
    """Above 0, and one that a clock takes."""
    assert all(map(is_duration, (1, 0.1, LONGEST)))
    wrong = (0, -1, True, None, "1", LONGEST + 1, float("inf"), float("nan"))
    assert not any(map(is_duration, wrong))


def test_until_it_expires() -> None:
    """In seconds: as they are given, or until a time; a time without a zone is UTC."""
    app = Celery("expires", broker="memory://", set_as_current=False)
    assert until(-3, app) == -3.0
    moment = datetime.now(UTC) + timedelta(hours=1)
    for given in (moment, moment.isoformat(), moment.replace(tzinfo=None)):
        assert 3500 < until(given, app) <= 3600
