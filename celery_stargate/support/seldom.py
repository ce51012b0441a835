"""Let a repeated log message through at once, and then ever more seldom."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Seldom"]


class Seldom:
    """Decides whether something that happens again and again is logged this time.

    Arguments:
        first: seconds of silence after the first time; each later silence is twice as long.
        longest: seconds of silence at most.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        first: float = 60.0,
        longest: float = 3600.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._silence = first
        self._longest = longest
        self._monotonic = monotonic
        self._silent_until: float | None = None

    def __call__(self) -> bool:
        """Return whether to log now; the next silence begins then."""
        now = self._monotonic()
        if self._silent_until is None:
            self._silent_until = now + self._silence
            return True
        if now < self._silent_until:
            return False
        self._silence = min(2 * self._silence, self._longest)
        self._silent_until = now + self._silence
        return True
