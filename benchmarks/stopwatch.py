"""Times what is measured of a rival; others may look at clocks of their own at its two ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

__all__ = ["Stopwatch"]


class Stopwatch:
    """Takes the time of a block.

    Arguments:
        begins, ends: called right before the block, and right after it.
    """

    def __init__(self, begins: Callable[[], None], ends: Callable[[], None]) -> None:
        self._begins, self._ends = begins, ends
        #: How long the block took.
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._begins()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self._ends()
