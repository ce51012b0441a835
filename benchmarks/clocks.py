"""The CPU of all processes while a rival is measured, by the processes' own clocks."""

from __future__ import annotations

import time
from pathlib import Path

from .figures import Laps
from .runner import Measured, Rival
from .shares import PARTS
from .site import Site

__all__ = ["CpuClocks"]


class CpuClocks:
    """Looks at the clocks of the caller, the servers and the workers.

    Arguments:
        site: where they are.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def run(self, rival: Rival, count: int) -> Measured:
        """Run a rival, and return what it took, with the seconds of CPU of each part."""
        looks: list[tuple[float, ...]] = []

        def look() -> None:
            looks.append(self._spent())

        with self._site.told(begins=look, ends=look):
            took: float | Laps = rival.run(count)
        began, ended = looks
        return Measured(
            took, tuple(after - before for before, after in zip(began, ended, strict=True))
        )

    def _spent(self) -> tuple[float, ...]:
        """Return the seconds of CPU of each part until now."""
        workers = [pid for each in self._site.workers for pid in _family(each.pid)]
        spent = {
            "caller": time.process_time(),
            "worker": sum(map(_seconds, workers)),
            **{name: _seconds(pid) for name, pid in self._site.servers.items()},
        }
        return tuple(spent.get(part, 0.0) for part in PARTS)


def _seconds(pid: int) -> float:
    """Return the seconds of CPU that a process has had, more exactly than /proc has them."""
    # The process's clock as clock_getcpuclockid(3) names it, which Python does not have.
    return time.clock_gettime(~pid << 3 | 2)


def _family(pid: int) -> list[int]:
    """Return a process and its direct children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]
