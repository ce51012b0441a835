"""Durations on the command line: ``5m`` as an argument, ``5m 3s`` in a table."""

from __future__ import annotations

from typing import Any

import click

from celery_stargate.model.durations import parse_duration

__all__ = ["DURATION", "Duration", "format_age", "format_duration"]


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Seconds, or a number with a unit: ``30s``, ``5m``, ``2h``, ``7d``, ``2w``."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds.

        Raises:
            click.BadParameter: it is no duration, or is too long.
        """
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value.strip(), bare=True)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()


def format_duration(seconds: float | None) -> str:
    """Return a duration for people, in at most two units, rounded down; ``-`` for None."""
    if seconds is None:
        return "-"
    sign = "-" if seconds <= -0.05 else ""
    left = abs(seconds)
    if left < 10:
        return f"{sign}{left:.1f}s"
    whole = int(left)
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
