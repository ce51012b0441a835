"""What a second worker costs a message. No I/O."""

from __future__ import annotations

import msgspec

from .figures import Spread

__all__ = ["Workers"]


class Workers(msgspec.Struct, frozen=True):
    """A run of ``benchmarks.workers``."""

    #: When it began, ISO 8601.
    date: str
    machine: dict[str, str]
    #: The CPU of a message, of workers and Redis, with two workers: that with one, in each round.
    ratio: Spread
