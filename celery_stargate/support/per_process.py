"""Values of which each process has its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerProcess"]

_Value = TypeVar("_Value")


class PerProcess(Generic[_Value]):
    """Make a value when it is first asked for, and after a fork make another one in the child.

    A socket shared with the parent would mix their answers, and a lock that another thread held at
    the fork would never be free.
    """

    def __init__(self, make: Callable[[], _Value]) -> None:
        self._make = make
        #: By the process's id.
        self._held: dict[int, _Value] = {}

    def get(self) -> _Value:
        """Return this process's value, to all its threads the same."""
        pid, held = os.getpid(), self._held
        if pid not in held:
            # Two threads may both make one here; setdefault is atomic, and the first one stays.
            held.setdefault(pid, self._make())
            for other in list(held):
                if other != pid:
                    held.pop(other, None)
        return held[pid]
