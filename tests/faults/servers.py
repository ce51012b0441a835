"""Faults of servers: Pulsar and Redis that are killed, frozen, or restarted."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.faults.registry import Setup, fault
from tests.faults.trial import Trial


@fault("pulsar-killed", "Pulsar is killed with -9, and starts again on its data", strikes=1)
def _pulsar_killed(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.own_pulsar.kill()
    yield
    trial.own_pulsar.start()


@fault(
    "redis-killed",
    "the lanes' Redis (`appendfsync always`) is killed with -9, and starts again on its file",
    setup=Setup(redis={"appendfsync": "always"}),
)
def _redis_killed(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.redis.kill()
    yield
    trial.redis.start()
