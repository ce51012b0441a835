"""Look into the lanes in Redis from outside: who owns them, and what is pending."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from celery_stargate.lanes.lane import Lane

from .app import LANES, app, notes
from .processes import Child
from .servers import wait_until

_LANES = [Lane(app.conf.stargate_topic, index) for index in range(LANES)]


@dataclass(frozen=True)
class Look:
    """The lanes at one moment."""

    #: The process id of each lane's owner; 0 if it has none.
    owners: tuple[int, ...]
    #: How many unfinished contexts each lane holds.
    pending: tuple[int, ...]


def look() -> Look:
    """Look at all lanes once."""
    with notes().pipeline(transaction=False) as pipeline:
        for lane in _LANES:
            pipeline.get(_key(lane, "lease"))
        for lane in _LANES:
            pipeline.hlen(_key(lane, "contexts"))
        found = pipeline.execute()
    return Look(tuple(_owner(lease) for lease in found[:LANES]), tuple(found[LANES:]))


def workers() -> int:
    """Return how many workers are alive."""
    client: Any = notes()
    return int(client.zcard(f"{app.conf.stargate_prefix}:{{registry}}:workers"))


def unfinished(indexes: set[int]) -> tuple[set[str], int]:
    """Return the contexts in some lanes, and how many of their messages have no receipt."""
    contexts: set[str] = set()
    messages = 0
    client: Any = notes()
    for index in sorted(indexes):
        lane = _LANES[index]
        names: Any = client.hkeys(_key(lane, "contexts"))
        contexts |= {name.decode() for name in names}
        messages += int(client.xlen(_key(lane, "log")))
    return contexts, messages


class Watch:
    """Watch some lanes from the death of their owner until their contexts are finished.

    Args:
        indexes: the lanes.
        dead: the process id of the killed owner.
        survivor: the worker that must take over.
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
        """Wait until all these lanes have a new owner.

        Raises:
            DemoError: it took longer than ``timeout`` seconds.
        """
        wait_until(self._taken.is_set, timeout, "no worker took over", self._survivor)

    def wait_for_rest(self, timeout: float) -> None:
        """Wait until every context in every lane is finished.

        Raises:
            DemoError: it took longer than ``timeout`` seconds.
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
    # The result backend's client adds no prefix to a key.
    return lane.key(app.conf.stargate_prefix, part)


def _owner(lease: bytes | None) -> int:
    """Read the process id out of ``HOST-PID-RANDOM:FENCING_TOKEN``."""
    return int(lease.decode().rpartition(":")[0].split("-")[-2]) if lease else 0
