"""Durations and deadlines that a caller gives: read and checked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from celery import Celery

from celery_stargate.errors import InvalidMessage

__all__ = ["read_timeout", "until"]


def read_timeout(timeout: Any) -> float:
    """Read a deadline of the call.

    Raises:
        InvalidMessage: it is no duration above zero.
    """
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidMessage(
            f"a timeout must be seconds or a timedelta, not {type(timeout).__name__}"
        )
    if not 0 < seconds <= 1e9:
        raise InvalidMessage(f"a timeout must be more than 0 seconds and finite, not {seconds}")
    return float(seconds)


def until(expires: Any, app: Celery) -> float:
    """Return the seconds until Celery's ``expires``: a number, a datetime or an ISO 8601 text."""
    if isinstance(expires, int | float):
        return max(0.001, float(expires))
    moment = datetime.fromisoformat(expires) if isinstance(expires, str) else expires
    now = app.now()
    if moment.utcoffset() is None:
        now = now.replace(tzinfo=None)
    left: float = (moment - now).total_seconds()
    return max(0.001, left)
