"""What the runner and the workers of fault runs share: a clock that jumps, and a secret."""

from __future__ import annotations

import mmap
from pathlib import Path

__all__ = ["CLOCK_JUMPS", "SECRET", "TOKENS", "Clock"]

# Environment variables of the worker processes.
#: The file with the offset of the clock, in seconds; unset: there is none.
CLOCK_JUMPS = "STARGATE_FAULTS_CLOCK"
#: If set, tokens are made for each connection, and are valid for so many seconds.
TOKENS = "STARGATE_FAULTS_TOKENS"
#: The secret of the broker's tokens.
SECRET = b"a secret of the fault runs, long enough for HS256"


class Clock:
    """An offset in a file that processes share."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(8)
            self._map = mmap.mmap(file.fileno(), 8)

    @property
    def offset(self) -> int:
        """Seconds that `time.time` is ahead."""
        return int.from_bytes(self._map[:8], "little", signed=True)

    @offset.setter
    def offset(self, seconds: int) -> None:
        self._map[:8] = seconds.to_bytes(8, "little", signed=True)
