"""Spans of time, as pages show them."""

from __future__ import annotations

from datetime import timedelta

__all__ = ["span"]


def span(seconds: float | None) -> str:
    """Return a time as `0:01:30`, or as `1 day, 2:00:00`."""
    if seconds is None:
        return "-"
    whole = timedelta(seconds=abs(round(seconds)))
    return f"{'-' if seconds <= -0.5 else ''}{whole}"
