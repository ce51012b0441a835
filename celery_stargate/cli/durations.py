"""Durations on the command line: ``5m`` as an argument, ``5m 3s`` in a table."""

from __future__ import annotations

import re
from typing import Any

import click

__all__ = ["DURATION", "Duration", "format_age", "format_duration"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd]?)")


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Seconds, or a number with a unit: ``30s``, ``5m``, ``2h``, ``7d``."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds.

        Raises:
            click.BadParameter: it is no duration.
        """
        if isinstance(value, int | float):
            return float(value)
        found = _DURATION.fullmatch(value.strip())
        if found is None:
            self.fail(f"{value!r} is no duration; write 30s, 5m, 2h or 7d", param, ctx)
        return float(found[1]) * _UNITS[found[2] or "s"]


DURATION = Duration()


def format_duration(seconds: float | None) -> str:
    """Return a duration for people, in at most two units; ``-`` for None."""
    if seconds is None:
        return "-"
    sign = "-" if seconds <= -0.05 else ""
    left = abs(seconds)
    if left < 10:
        return f"{sign}{left:.1f}s"
    whole = round(left)
    if whole < 60:
        return f"{sign}{whole}s"
    if whole < 3600:
        return f"{sign}{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{sign}{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{sign}{whole // 86_400}d {whole % 86_400 // 3600:02}h"


def format_age(seconds: float | None, *, exact: bool) -> str:
    """Return an age; with ``~`` before one that is computed from the deadline."""
    if seconds is None:
        return "-"
    return f"{'' if exact else '~'}{format_duration(seconds)}"
