"""Options that the outbox's commands share."""

from __future__ import annotations

import argparse
import re
from datetime import timedelta

from django.core.management.base import CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections

from celery_stargate.contrib.django.lanes import current_stargate
from celery_stargate.errors import StargateError

__all__ = ["add_database", "duration", "positive", "topic_name"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _alias(text: str) -> str:
    if text not in connections:
        raise argparse.ArgumentTypeError(
            f"there is no database {text!r}; there are {', '.join(connections)}"
        )
    return text


def add_database(parser: CommandParser) -> None:
    """Add ``--database``."""
    parser.add_argument(
        "--database", default=DEFAULT_DB_ALIAS, type=_alias, help="the alias of the database"
    )


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def duration(text: str) -> timedelta:
    """Read ``30s``, ``15m``, ``12h``, ``7d`` or ``2w``."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration, such as 30s, 15m, 12h, 7d, 2w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def topic_name(topic: str | None) -> str | None:
    """Return a topic's full name, given that or its name in the settings.

    Raises:
        CommandError: it is malformed.
    """
    if topic is None:
        return None
    try:
        parsed, _ = current_stargate().settings.resolve(topic)
    except StargateError as error:
        raise CommandError(str(error)) from None
    return str(parsed)
