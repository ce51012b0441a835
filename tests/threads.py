"""Whether threads that began in a test have ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

__all__ = ["still_alive"]


def still_alive(
    before: Collection[threading.Thread], *named: str, within: float = 10.0
) -> list[str]:
    """Return the names of threads that have begun since, and do not end in time.

    A thread that has done its work is alive for a moment longer than whoever waits for the work.

    Arguments:
        before: the threads that were alive at first.
        named: only threads whose names contain one of these texts; none: all threads.
        within: seconds for all of them.
    """
    end = time.monotonic() + within
    begun = [
        each
        for each in threading.enumerate()
        if each not in before and (not named or any(text in each.name for text in named))
    ]
    for thread in begun:
        thread.join(max(0.0, end - time.monotonic()))
    return [thread.name for thread in begun if thread.is_alive()]
