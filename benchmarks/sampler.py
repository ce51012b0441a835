"""Look at a thread's stack while it works, and tell where it was."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from types import FrameType
from typing import Self

__all__ = ["Sampler", "part_of"]

#: How often it looks, in seconds.
_EVERY = 0.001
#: The functions in which a thread waits: nothing of its CPU is spent there.
_WAITING = {
    ("selectors", "select"),
    ("threading", "wait"),
    ("concurrent.futures.thread", "_worker"),
    ("redis._parsers.hiredis", "read_from_socket"),
    ("redis._parsers.socket", "_read_from_socket"),
}
_PACKAGES = ("celery", "kombu", "redis", "websockets", "asyncio", "concurrent")


def part_of(frame: FrameType | None) -> str | None:
    """Return the part that a stack is in; None where it waits.

    It is the innermost module of ours, or package of others'; the standard library counts for
    whoever called it, but for asyncio.
    """
    if frame is None or (frame.f_globals.get("__name__"), frame.f_code.co_name) in _WAITING:
        return None
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        package, _, rest = module.partition(".")
        if package == "celery_stargate":
            return f"`{rest or package}`"
        if package in _PACKAGES:
            return "asyncio" if package == "concurrent" else package
        frame = frame.f_back
    return "the rest"


class Sampler:
    """Samples one thread until it is left; a context manager.

    Arguments:
        ident: the thread's.
    """

    def __init__(self, ident: int) -> None:
        self._ident = ident
        self._clock = time.pthread_getcpuclockid(ident)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.parts: Counter[str] = Counter()
        #: Seconds of CPU that the thread took.
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._interval = sys.getswitchinterval()
        # Or it would see only where the other thread lets go of the interpreter.
        sys.setswitchinterval(_EVERY / 100)
        self._began = time.clock_gettime(self._clock)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.seconds = time.clock_gettime(self._clock) - self._began
        self._stop.set()
        self._thread.join()
        sys.setswitchinterval(self._interval)

    def _work(self) -> None:
        while not self._stop.wait(_EVERY):
            frame = sys._current_frames().get(self._ident)  # noqa: SLF001  # its documented name
            part = part_of(frame)
            if part is not None:
                self.parts[part] += 1

    def micros(self, messages: int) -> dict[str, float]:
        """Return the microseconds of CPU a message in each part."""
        total = self.parts.total() or 1
        each = 1e6 * self.seconds / messages
        return {name: each * count / total for name, count in self.parts.items()}
