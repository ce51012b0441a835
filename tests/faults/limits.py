"""Faults of the machine and its operators: descriptors, clocks, tokens, changing workers."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.environment import TOKENS
from tests.faults.registry import Setup, fault
from tests.faults.trial import Trial


@fault(
    "descriptors-exhausted",
    "a worker may open no more descriptors, and its links are cut",
    lasts=4.0,
)
def _descriptors(trial: Trial, draw: random.Random) -> Iterator[None]:
    victim = trial.owner()
    pid = victim.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))
    # Numbers below it that are free are used up by what is cut.
    trial.link.cut()
    trial.store_link.cut()
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@fault(
    "workers-come-and-go",
    "a worker joins, and the oldest gets SIGTERM, while lanes move between them",
    strikes=4,
)
def _churn(trial: Trial, draw: random.Random) -> Iterator[None]:
    oldest = trial.workers.pop(0)
    trial.workers.append(trial.new_worker())
    oldest.terminate()
    yield
    oldest.stop()


@fault(
    "clock-jumps",
    "the clock of all workers jumps by an hour, forth or back, and back again",
    strikes=4,
    setup=Setup(clock=True),
)
def _clock(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.clock.offset = draw.choice((-3600, 3600))
    yield
    trial.clock.offset = 0


@fault(
    "token-expires",
    "each connection's token is valid for two seconds; links are cut after that",
    lasts=2.5,
    setup=Setup(broker="tokens", env={TOKENS: "2"}),
)
def _token(trial: Trial, draw: random.Random) -> Iterator[None]:
    time.sleep(2.0)
    trial.link.cut()
    yield
