"""Backoff: how long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Double the wait with each try up to a bound, with jitter so that many do not retry at once.

    Arguments:
        first: seconds to wait after the first try, at most.
        longest: seconds to wait after any try, at most.
        uniform: draws a random number between two.
    """

    def __init__(
        self,
        first: float = 0.1,
        longest: float = 10.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first = first
        self._longest = longest
        self._uniform = uniform
        self._tries = 0

    def next(self) -> float:
        """Return the seconds to wait now."""
        ceiling = min(self._longest, self._first * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return self._uniform(ceiling / 2, ceiling)

    def reset(self) -> None:
        """Start again with the shortest wait, after a success."""
        self._tries = 0
