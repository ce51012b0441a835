"""A limit that gives way to failures: how much to ask for, where too much cannot be answered."""

from __future__ import annotations

__all__ = ["AdaptiveLimit"]

#: How many successes bring a limit back from nothing.
_STEPS = 256


class AdaptiveLimit:
    """Halves with each failure, and grows with each success, as TCP's congestion window does.

    What is asked for again and again then succeeds, unless not even the least does.

    Arguments:
        most: the limit at first, and at most; at least it is 1.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._now = float(most)

    @property
    def now(self) -> int:
        """The limit now."""
        return int(self._now)

    def failed(self) -> None:
        """Ask for less from now on."""
        self._now = max(1.0, self._now / 2)

    def succeeded(self) -> None:
        """Ask for a little more from now on."""
        self._now = min(float(self._most), self._now + self._most / _STEPS)
