"""Durations, timeouts and expiry times: read and checked."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

from celery import Celery
from celery.utils.time import maybe_iso8601, maybe_make_aware

from celery_stargate.errors import InvalidMessage, shown

__all__ = ["LONGEST", "is_duration", "parse_duration", "read_timeout", "until"]

#: The longest duration, in seconds: 31 years. The Lua scripts add it to Redis' clock and stay
#: exact, and sockets, threads and dates take it.
LONGEST = 1e9

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)")


def is_duration(seconds: object) -> TypeGuard[float]:
    """Whether it is a number above 0 that is not too long; infinity and NaN are not."""
    return (
        isinstance(seconds, int | float)
        and not isinstance(seconds, bool)
        and 0 < seconds <= LONGEST
    )


def parse_duration(text: str, *, bare: bool) -> float:
    """Return the seconds of a number with a unit: ``30s``, ``5m``, ``2h``, ``7d``, ``2w``.

    Arguments:
        text: as a person wrote it.
        bare: whether a number without a unit is seconds.

    Raises:
        ValueError: it is no duration, or is too long.
    """
    found = _DURATION.fullmatch(text)
    if found is None or not (found[2] or bare):
        raise ValueError(f"{shown(text)} is no duration; write 30s, 5m, 2h, 7d or 2w")
    seconds = float(found[1]) * _UNITS[found[2] or "s"]
    if seconds > LONGEST:
        raise ValueError(
            f"{shown(text)} is too long; a duration is at most {LONGEST:.0f} seconds (31 years)"
        )
    return seconds


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
    if not is_duration(seconds):
        raise InvalidMessage(
            f"a timeout must be more than 0 and at most {LONGEST:.0f} seconds, not {shown(seconds)}"
        )
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
