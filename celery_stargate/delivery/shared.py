"""What the owners of a process's lanes share."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from celery_stargate.delivery.demand import Demand
from celery_stargate.delivery.producers import Producers
from celery_stargate.delivery.renewals import Renewals
from celery_stargate.delivery.watcher import Watcher
from celery_stargate.delivery.watchers import BucketWatchers
from celery_stargate.effects.jobs import Stage
from celery_stargate.effects.run import Effects
from celery_stargate.model.settings import Settings

__all__ = ["Services", "Shared", "StageThreads"]


@dataclass(frozen=True, slots=True)
class Services:
    """What a supervisor is given for its owners."""

    producers: Producers
    effects: Effects
    #: Makes a thread for a stage of the effects.
    thread: Callable[[Stage], Executor]
    #: Whether a context was revoked, as Celery's worker knows it.
    revoked: Callable[[str], bool]
    #: Why a caller's process owns lanes; None for a worker, which needs no reason.
    demand: Demand | None = None


#: Seconds after which the first thread that hangs in a stage is replaced.
_REPLACE_AFTER = 60.0


class StageThreads:
    """The threads of a process in which the effects run: one for each stage.

    Arguments:
        make: makes the thread of a stage.
    """

    def __init__(self, make: Callable[[Stage], Executor]) -> None:
        self._make = make
        self._threads: dict[Stage, Executor] = {}
        self._replaced: Counter[Stage] = Counter()

    def of(self, stage: Stage) -> Executor:
        """Return the thread of a stage."""
        if stage not in self._threads:
            self._threads[stage] = self._make(stage)
        return self._threads[stage]

    def patience(self, stage: Stage) -> float:
        """Return after how many seconds a thread that hangs is to be replaced."""
        return float(_REPLACE_AFTER * 2 ** min(self._replaced[stage], 6))

    def replace(self, stage: Stage) -> None:
        """Use another thread from now on: the server may be back, and the present one hangs."""
        self._replaced[stage] += 1
        if stage in self._threads:
            self._threads.pop(stage).shutdown(wait=False)

    def close(self) -> None:
        """End the threads, without waiting for what they do."""
        for each in self._threads.values():
            each.shutdown(wait=False)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the owners of a process's lanes share."""

    settings: Settings
    threads: StageThreads
    services: Services
    watcher: Watcher | BucketWatchers
    renewals: Renewals
    #: Draws the jitter between two tries.
    rng: random.Random
    #: The clock of leases and of idle lanes, in seconds.
    monotonic: Callable[[], float]
