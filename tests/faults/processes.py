"""Faults of processes: workers and callers that are killed, frozen, or stopped."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

from tests.acceptance.tasks import BELIEVE
from tests.faults.checker import Promise
from tests.faults.registry import AT_LEAST_ONCE, ONCE, Setup, fault
from tests.faults.trial import LEASE, Trial


@fault(
    "none",
    "nothing happens: what the runs themselves do to the figures",
    promise=Promise(duplicates=0),
    strikes=0,
    repeats=False,
)
def _none(trial: Trial, draw: random.Random) -> Iterator[None]:
    yield


@fault(
    "worker-killed",
    "a worker that owns lanes is killed with -9, with its whole group; another starts later",
)
def _worker_killed(trial: Trial, draw: random.Random) -> Iterator[None]:
    victim = trial.owner()
    victim.kill()
    yield
    trial.replace_worker(victim)


@fault(
    "caller-killed",
    "a process that calls `delay()` is killed with -9 in a call; another goes on behind it",
    setup=Setup(while_called=True),
    lasts=0.2,
)
def _caller_killed(trial: Trial, draw: random.Random) -> Iterator[None]:
    draw.choice(trial.callers).kill_and_follow()
    yield


@fault(
    "worker-frozen",
    "a worker that owns lanes is stopped (SIGSTOP) for longer than its lease, then goes on",
    lasts=2.5 * LEASE,
)
def _worker_frozen(trial: Trial, draw: random.Random) -> Iterator[None]:
    victim = trial.owner()
    victim.pause()
    yield
    victim.resume()


@fault(
    "worker-killed-without-deduplication",
    "as worker-killed, effectively once, but the broker does not deduplicate",
    deliveries=(ONCE,),
    setup=Setup(broker="no-deduplication", env={BELIEVE: "1"}),
    control=("duplicated",),
)
def _control_deduplication(trial: Trial, draw: random.Random) -> Iterator[None]:
    victim = trial.owner()
    victim.kill()
    yield
    trial.replace_worker(victim)


def _signalled(trial: Trial, number: signal.Signals) -> Iterator[None]:
    victim = trial.owner()
    os.kill(victim.pid, number)
    yield
    victim.wait_for_end(40.0)
    trial.replace_worker(victim)


@fault(
    "warm-stop",
    "a worker that owns lanes gets SIGTERM; another starts when it has ended",
    # It waits for what is in flight.
    promise=Promise(duplicates=0),
)
def _warm_stop(trial: Trial, draw: random.Random) -> Iterator[None]:
    yield from _signalled(trial, signal.SIGTERM)


@fault("cold-stop", "the same with SIGQUIT")
def _cold_stop(trial: Trial, draw: random.Random) -> Iterator[None]:
    yield from _signalled(trial, signal.SIGQUIT)


@fault(
    "soft-stop",
    "the same with SIGQUIT and `worker_soft_shutdown_timeout`",
    setup=Setup(
        conf={
            "worker_soft_shutdown_timeout": 3.0,
            "worker_enable_soft_shutdown_on_idle": True,
        }
    ),
)
def _soft_stop(trial: Trial, draw: random.Random) -> Iterator[None]:
    yield from _signalled(trial, signal.SIGQUIT)


@fault(
    "pool-child-killed",
    "each child of a worker's pool is killed with -9; the pool makes new ones",
    setup=Setup(pool="prefork"),
    promise=Promise(duplicates=0),
    deliveries=(AT_LEAST_ONCE, ONCE),
)
def _pool_child_killed(trial: Trial, draw: random.Random) -> Iterator[None]:
    for child in trial.children(trial.owner()):
        os.kill(child, signal.SIGKILL)
    yield
