"""Options that the outbox's commands share."""

from __future__ import annotations

import argparse
from datetime import timedelta

from django.core.management.base import CommandError, CommandParser
from django.db import connections

from celery_stargate.contrib.django import lanes
from celery_stargate.contrib.django.rows import outbox_alias
from celery_stargate.errors import StargateError, shown
from celery_stargate.model.durations import parse_duration

__all__ = ["add_database", "duration", "positive", "topic_name"]

#: What a database's integer field takes.
_MOST = 2**31 - 1
#: Python refuses to read a number of thousands of digits.
_DIGITS = 10


def _alias(text: str) -> str:
    if text not in connections:
        raise argparse.ArgumentTypeError(
            f"there is no database {text!r}; there are {', '.join(connections)}"
        )
    return text


def add_database(parser: CommandParser) -> None:
    """Add ``--database``."""
    parser.add_argument(
        "--database",
        default=outbox_alias(),
        type=_alias,
        help="the alias of the database; by default the router's choice for the outbox",
    )


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or len(text) > _DIGITS or not 0 < int(text) <= _MOST:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is no whole number above 0 and up to {_MOST}"
        )
    return int(text)


def duration(text: str) -> timedelta:
    """Read ``30s``, ``15m``, ``12h``, ``7d`` or ``2w``."""
    try:
        return timedelta(seconds=parse_duration(text, bare=False))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def topic_name(topic: str | None) -> str | None:
    """Return a topic's full name, given that or its name in the settings.

    Raises:
        CommandError: it is malformed.
    """
    if topic is None:
        return None
    try:
        parsed, _ = lanes.current_stargate().settings.resolve(topic)
    except StargateError as error:
        raise CommandError(str(error)) from None
    return str(parsed)
