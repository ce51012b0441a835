"""Durations: what a timeout may be, and the seconds until Celery's `expires`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery

from celery_stargate import InvalidMessage
from celery_stargate.model.durations import read_timeout, until


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
        (0, "must be more than 0 seconds and finite, not 0"),
        (timedelta(seconds=-1), "must be more than 0 seconds and finite, not -1.0"),
        (float("inf"), "must be more than 0 seconds and finite, not inf"),
        (float("nan"), "must be more than 0 seconds and finite, not nan"),
    ],
)
def test_what_is_no_timeout(timeout: Any, words: str) -> None:
    with pytest.raises(InvalidMessage, match=words):
        read_timeout(timeout)


def test_until_it_expires() -> None:
    """In seconds: as they are given, or until a time; a time without a zone is UTC."""
    app = Celery("expires", broker="memory://", set_as_current=False)
    assert until(-3, app) == -3.0
    moment = datetime.now(UTC) + timedelta(hours=1)
    for given in (moment, moment.isoformat(), moment.replace(tzinfo=None)):
        assert 3500 < until(given, app) <= 3600
