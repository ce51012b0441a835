"""What the owners of a process's lanes share."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from celery_stargate.delivery.producers import Producers
from celery_stargate.delivery.renewals import Renewals
from celery_stargate.delivery.watcher import Watcher
from celery_stargate.effects.run import Effects
from celery_stargate.lanes.registry import Registry
from celery_stargate.model.settings import Settings

__all__ = ["Services", "Shared"]


@dataclass(frozen=True, slots=True)
class Services:
    """What a supervisor is given for its owners."""

    producers: Producers
    effects: Effects
    #: One thread, in which the effects run.
    executor: Executor
    #: Whether a context was revoked, as Celery's worker knows it.
    revoked: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the owners of a process's lanes share."""

    settings: Settings
    services: Services
    watcher: Watcher
    renewals: Renewals
    registry: Registry
    #: Draws the jitter between two tries.
    rng: random.Random
    #: The clock of leases and of idle lanes, in seconds.
    monotonic: Callable[[], float]
