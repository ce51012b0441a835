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
        self._held: tuple[int, _Value] | None = None

    def get(self) -> _Value:
        """Return this process's value."""
        held = self._held
        if held is None or held[0] != os.getpid():
            # Two threads may both make one here; the last one stays, and neither is wrong.
            held = self._held = os.getpid(), self._make()
        return held[1]
