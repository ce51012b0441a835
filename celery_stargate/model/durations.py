"""Timeouts and expiry times of a call: read and checked."""

from __future__ import annotations

from datetime import datetime, timedelta

from celery import Celery

from celery_stargate.errors import InvalidMessage

__all__ = ["read_timeout", "until"]


def read_timeout(timeout: object) -> float:
    """Return the seconds of a call's timeout.

    Arguments:
        timeout: seconds or a timedelta.

    Raises:
        InvalidMessage: it is not a duration above zero.
    """
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidMessage(
            f"a timeout must be seconds or a timedelta, not {type(timeout).__name__}"
        )
    if not 0 < seconds <= 1e9:
        raise InvalidMessage(f"a timeout must be more than 0 seconds and finite, not {seconds}")
    return float(seconds)


def until(expires: float | datetime | str, app: Celery) -> float:
    """Return the seconds until Celery's ``expires``, at least 0.001.

    Arguments:
        expires: seconds, a datetime or an ISO 8601 text.
        app: for the current time in Celery's time zone.
    """
    if isinstance(expires, int | float):
        return max(0.001, float(expires))
    moment = datetime.fromisoformat(expires) if isinstance(expires, str) else expires
    now = app.now()
    if moment.utcoffset() is None:
        now = now.replace(tzinfo=None)
    left: float = (moment - now).total_seconds()
    return max(0.001, left)
