"""Values that a forked child must not share with its parent."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerProcess"]

_Value = TypeVar("_Value")


class PerProcess(Generic[_Value]):
    """Make a value when it is first needed; after a fork, make another one in the child.

    Parent and child would read each other's answers from a shared socket, and a lock that another
    thread held at the fork would never be released.

    Arguments:
        make: makes a value.
    """

    def __init__(self, make: Callable[[], _Value]) -> None:
        self._make = make
        #: By process id.
        self._held: dict[int, _Value] = {}

    def get(self) -> _Value:
        """Return the value of this process, which all its threads share."""
        pid, held = os.getpid(), self._held
        if pid not in held:
            # Two threads may both make a value; setdefault is atomic and keeps the first one.
            held.setdefault(pid, self._make())
            for other in list(held):
                if other != pid:
                    held.pop(other, None)
        return held[pid]
