"""Timeouts and expiry times of a call: read and checked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from celery.utils.time import maybe_iso8601, maybe_make_aware

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


def until(expires: Any, app: Celery) -> float:
    """Return the seconds until Celery's ``expires``, as Celery's worker reads it.

    A time without a time zone is UTC. Zero or less: it has expired.

    Arguments:
        expires: seconds, a datetime, or ISO 8601 text.
        app: whose ``timezone`` Celery reads a time by.
    """
    if isinstance(expires, int | float):
        return float(expires)
    read: Any = maybe_iso8601(expires)
    moment: datetime = maybe_make_aware(read, app.conf.timezone)
    return (moment - datetime.now(UTC)).total_seconds()
