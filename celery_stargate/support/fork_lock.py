"""A lock during which the process does not fork."""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["ForkLock"]


class ForkLock:
    """Guards what a forked child uses too: the child never finds it, or what it guards, locked.

    Libraries such as ``prometheus_client`` have locks of their own. A child that is forked while
    another thread holds one of them would wait for it for ever. So hold this lock around their use.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _alive.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()


#: All of this process.
_alive: weakref.WeakSet[ForkLock] = weakref.WeakSet()
#: Those that are held for the fork under way.
_held: list[ForkLock] = []


def _before() -> None:
    for each in list(_alive):
        each.__enter__()
        _held.append(each)


def _after() -> None:
    while _held:
        _held.pop().__exit__()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
