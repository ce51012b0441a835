"""A look into the lanes in Redis, from outside: who owns them, what is pending in them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from celery_stargate.lanes.lane import Lane

from .app import LANES, notes, stargate
from .processes import Child
from .servers import wait_until

_LANES = [Lane(stargate.settings.topic or "", index) for index in range(LANES)]


@dataclass(frozen=True)
class Look:
    """The orders' lanes at one moment."""

    #: The process id of each lane's owner; 0 where it has none.
    owners: tuple[int, ...]
    #: How many contexts are not finished in each lane.
    pending: tuple[int, ...]


def look() -> Look:
    """Look once."""
    with notes().pipeline(transaction=False) as pipeline:
        for lane in _LANES:
            pipeline.get(_key(lane, "lease"))
        for lane in _LANES:
            pipeline.hlen(_key(lane, "contexts"))
        found = pipeline.execute()
    return Look(tuple(_owner(lease) for lease in found[:LANES]), tuple(found[LANES:]))


def unfinished(indexes: set[int]) -> tuple[set[str], int]:
    """Return the contexts that some lanes hold, and how many messages of theirs have no receipt."""
    contexts: set[str] = set()
    messages = 0
    for index in sorted(indexes):
        lane = _LANES[index]
        names: Any = notes().hkeys(_key(lane, "contexts"))
        contexts |= {name.decode() for name in names}
        messages += stargate.lanes.backlog(lane)
    return contexts, messages


class Watch:
    """Watch some lanes from the death of their owner until what waited in them is finished.

    Args:
        indexes: the lanes.
        dead: the process id of the owner that was just killed.
        survivor: the worker that must live for all this.
    """

    def __init__(self, indexes: set[int], dead: int, survivor: Child) -> None:
        self.takeover = 0.0
        self.drained_per_second = 0.0
        self._indexes = indexes
        self._dead = dead
        self._survivor = survivor
        self._taken = threading.Event()
        self._drained = threading.Event()
        self._stop = threading.Event()
        self._start = time.perf_counter()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def wait_for_takeover(self, timeout: float) -> None:
        """Wait until all these lanes have another owner.

        Raises:
            DemoError: they have not in time.
        """
        wait_until(self._taken.is_set, timeout, "nobody took over", self._survivor)

    def wait_for_rest(self, timeout: float) -> None:
        """Wait until what waited at the take-over is finished, and all else in any lane.

        Raises:
            DemoError: it is not in time.
        """
        problem = "the lanes were not empty"
        wait_until(self._drained.is_set, timeout, problem, self._survivor)
        wait_until(lambda: not any(look().pending), timeout, problem, self._survivor)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            owners = look().owners
            if all(owners[index] not in (0, self._dead) for index in self._indexes):
                break
        self.takeover = time.perf_counter() - self._start
        waiting, _ = unfinished(self._indexes)
        began = time.perf_counter()
        self._taken.set()
        while waiting and not self._stop.is_set():
            contexts, _ = unfinished(self._indexes)
            if not waiting & contexts:
                self.drained_per_second = len(waiting) / (time.perf_counter() - began)
                break
            self._stop.wait(0.01)
        self._drained.set()


def _key(lane: Lane, part: str) -> str:
    # The client of the result backend puts no prefix before a key.
    return lane.key(stargate.settings.prefix, part)


def _owner(lease: bytes | None) -> int:
    """Read the process id out of ``HOST-PID-RANDOM:EPOCH``."""
    return int(lease.decode().rpartition(":")[0].split("-")[-2]) if lease else 0
