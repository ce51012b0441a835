"""CPU time of a call, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

__all__ = ["micros_of"]


def micros_of(work: Callable[[], object], count: int = 500, rounds: int = 5) -> float:
    """Return the microseconds of this process's CPU that a call takes: the median of rounds."""
    for _ in range(20):
        work()
    found = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(count):
            work()
        found.append(1e6 * (time.process_time() - began) / count)
    return median(found)
