"""Bounds: memory, descriptors, threads and keys, the backlog, a poison message, many lanes.

A kind measures while it strikes, and notes each figure with its bound; the checker compares them.
Its size can be chosen with `--size`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from celery_stargate import ProduceError
from tests.acceptance.rig import Worker, eventually
from tests.faults.caller import keys_of_lanes
from tests.faults.checker import Promise
from tests.faults.registry import Setup, fault
from tests.faults.trial import LEASE, TIMEOUT, Trial

#: The id of the message that breaks each connection.
POISON = "poison"
_MAX_BACKLOG = 50
#: How long a drain may take in any case, in seconds; and at what rate it must go on behind that.
_PATIENCE, _SLOWEST = 120.0, 500
#: Fewer messages drain in so short a time that the wait before a new connection decides.
_RATE_NEEDS = 20_000


def _resident(worker: Worker) -> float:
    """The memory of a worker's main process, in MB."""
    for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("there is no VmRSS")


def _descriptors(worker: Worker) -> int:
    return len(list(Path(f"/proc/{worker.pid}/fd").iterdir()))


def _threads(worker: Worker) -> int:
    return len(list(Path(f"/proc/{worker.pid}/task").iterdir()))


def _drain(trial: Trial) -> float:
    """Wait until the lanes hold nothing; return how long it took."""
    began = time.monotonic()
    bound = _PATIENCE + trial.waiting()[0] / _SLOWEST
    assert eventually(lambda: not trial.waiting()[0], bound, every=0.05), "the lanes stand still"
    return time.monotonic() - began


def _drain_rate(trial: Trial) -> float:
    """Let a link that refuses accept; return how many messages a second are settled.

    Reconnecting takes its time; the rate counts from the first receipt.
    """
    held = trial.waiting()[0]
    trial.link.accept()
    eventually(lambda: trial.waiting()[0] < held, 60.0, every=0.02)
    held = trial.waiting()[0]
    return max(held, 1) / max(_drain(trial), 0.01)


@fault(
    "pulsar-away",
    "Pulsar is away for SIZE seconds while calls go on: memory stays flat, and the backlog drains",
    strikes=1,
    size=15,
    lasts=0.0,
    repeats=False,
    setup=Setup(at=(0.02, 0.04), outlasts=True),
)
def _away(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.link.release()
    _drain(trial)
    messages = trial.plan.messages
    # Undisturbed: how fast a backlog drains of which nothing was sent.
    trial.link.refuse()
    trial.allow(trial.calls() + min(messages // 5, _RATE_NEEDS // 2))
    rate = _drain_rate(trial)
    sizes = {worker.pid: _resident(worker) for worker in trial.workers}
    trial.link.refuse()
    calls, began, grown, past = trial.calls(), time.monotonic(), 0.0, 0.0
    while past < trial.size:
        past = time.monotonic() - began
        # At an even rate.
        trial.allow(calls + round((messages - calls) * min(1.0, past / trial.size)), wait=False)
        grown = max(grown, *(_resident(each) - sizes[each.pid] for each in trial.workers))
        time.sleep(0.2)
    calls_a_second = (trial.calls() - calls) / past
    # What is called after that is in the measurement of neither.
    trial.allow(messages)
    rate_after = _drain_rate(trial)
    away = f"{trial.size} s, {calls_a_second:.0f} calls/s"
    trial.bound(f"growth of a worker's memory, MB ({away})", grown, 20.0)
    if messages >= _RATE_NEEDS:
        trial.bound(f"rate before, in rates after ({away})", rate / rate_after, 2.0)
    yield


@fault(
    "reconnects",
    "the link to Pulsar is cut SIZE times: no descriptor, thread or key is left",
    strikes=1,
    size=60,
    lasts=0.0,
    promise=Promise(any_copies=True),
    repeats=False,
    setup=Setup(at=(0.1, 0.2)),
)
def _reconnects(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.link.release()
    _drain(trial)
    before = [(_descriptors(each), _threads(each)) for each in trial.workers]
    keys = trial.keys()
    calls = trial.calls()
    for number in range(trial.size):
        made = trial.link.connections
        if number:
            # The first one is noted as each kind's strike is.
            trial.note("strike", kind=trial.kind.name, in_flight=trial.waiting()[1])
        trial.link.cut()
        trial.allow(calls + 4 * number, wait=False)
        assert eventually(lambda made=made: trial.link.connections > made, 60.0, every=0.005)  # type: ignore[misc]
        # Some is delivered in between, or messages would end at their deadline.
        eventually(lambda: not trial.waiting()[0], 3.0)
    _drain(trial)

    def as_before() -> bool:
        now = [(_descriptors(each), _threads(each)) for each in trial.workers]
        counts = zip(now, before, strict=True)
        return trial.keys() <= keys and all(a <= c and b <= d for (a, b), (c, d) in counts)

    # Sockets that were cut are closed, and callbacks of what was drained published, a moment later.
    eventually(as_before, 15.0, every=0.2)
    for worker, (descriptors, threads) in zip(trial.workers, before, strict=True):
        # One connection to Redis may be open for a moment.
        trial.bound("more descriptors", _descriptors(worker) - descriptors, LANE_SOCKETS)
        trial.bound("more threads", _threads(worker) - threads, 0)
    trial.bound("more keys", trial.keys() - keys, 2)
    trial.bound(f"fewer cuts than {trial.size}", trial.size - (trial.link.connections), 0)
    yield


#: Each lane of a worker may have opened its socket only after the first count.
LANE_SOCKETS = 8


@fault(
    "poison",
    "one message breaks each connection (its frame is too large for Pulsar); others go on",
    strikes=1,
    repeats=False,
    lasts=0.0,
    promise=Promise(any_copies=True, may_fail=frozenset((POISON,))),
    setup=Setup(conf={"stargate_max_frame_size": 8 << 20}),
)
def _poison(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.link.release()
    key = keys_of_lanes(trial.lanes)[0]
    trial.note("attempt", id=POISON, lane=None, number=0, timeout=TIMEOUT, callback=False)
    produce: Any = trial.rig.produce
    options = {"topic": trial.topic, "delivery_timeout": TIMEOUT}
    produce.apply_async(((key, "x" * (3 << 20)),), options, task_id=POISON)
    trial.note("accepted", id=POISON)
    trial.allow(trial.plan.messages, wait=False)
    began = time.monotonic()
    # A message behind it in the same lane.
    trial.note("attempt", id="behind", lane=None, number=0, timeout=60.0, callback=False)
    status: str | None = None
    try:
        receipt = trial.rig.stargate.produce(
            (key, "behind"), topic=trial.topic, timeout=60, context="behind"
        )
        status = receipt.status
    except ProduceError as error:
        status = error.status
    took = time.monotonic() - began
    trial.note("wait", id="behind", took=took, timeout=60.0, status=status)
    trial.bound("seconds until what is behind it is stored", took, 15.0)
    yield


@fault(
    "max-backlog",
    f"`stargate_max_backlog={_MAX_BACKLOG}` while Pulsar is away: callers get `LaneFull`",
    lasts=0.0,
    # Calls wait for room, so they are not waited for.
    setup=Setup(conf={"stargate_max_backlog": _MAX_BACKLOG}, while_called=True),
    strikes=1,
    repeats=False,
)
def _max_backlog(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.link.release()
    trial.link.refuse()
    trial.allow(trial.plan.messages, wait=False)
    end, most = time.monotonic() + 6.0, 0
    while time.monotonic() < end:
        most = max(most, *(backlog for backlog, _ in trial.each_lane()))
    trial.link.accept()
    trial.bound("backlog of a lane", most, _MAX_BACKLOG)
    # Else the bound was not met, and nothing was seen.
    trial.bound("less than the bound by", _MAX_BACKLOG - most, 0)
    yield


@fault(
    "thousand-lanes",
    "1,000 lanes on three workers, one of which is killed with -9: its lanes have new owners soon",
    strikes=1,
    repeats=False,
    lasts=0.0,
    setup=Setup(lanes=1000, workers=3),
)
def _thousand_lanes(trial: Trial, draw: random.Random) -> Iterator[None]:
    victim = trial.owner()
    pid, began = victim.pid, time.monotonic()
    victim.kill()
    trial.link.release()
    lost = trial.owned_by(pid)

    def taken() -> bool:
        try:
            return not trial.owned_by(pid)
        except RedisError:
            return False

    eventually(taken, 10 * LEASE, every=0.05)
    trial.bound("seconds until the last lane has a new owner", time.monotonic() - began, 2 * LEASE)
    trial.bound("fewer lanes than 100 were its own", 100 - len(lost), 0)
    yield
    trial.replace_worker(victim)
