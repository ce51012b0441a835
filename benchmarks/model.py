"""On paper: what shards, workers and partitions carry, from the measured costs. No I/O.

Each message costs each stage so much of one core (a shard of Redis and a worker are one thread
each), and one lane of one partition carries so much. The stage with the least sets the pace. Keys
are hashed to partitions, so the busiest one gets more than its share; how much more is found by
hashing many. Lanes are dealt out to buckets, so a shard, too, may get more. A message costs a shard
of several more than it costs one alone, for each shard has its own round trips; `python -m
benchmarks.shards` measures how much. It also shows whether the model is right: what it says of the
measuring machine, whose cores all stages shared, stands beside what was measured there. What the
model leaves out: the network between machines, and Pulsar's disks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from random import Random
from typing import Self
from zlib import crc32

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from celery_stargate.lanes.lane import Lane
from celery_stargate.model.buckets import in_buckets

from .figures import Report
from .growth_figures import Growth
from .profile_figures import Profile
from .shard_figures import Drain, ShardFigures

__all__ = [
    "Model",
    "here",
    "on_machines_of_their_own",
    "render_drains",
    "render_model",
    "shard_overhead",
    "shard_skew",
    "skew",
]

#: Shards of Redis, workers, partitions with one lane each.
_SIZES = ((1, 1, 1), (1, 2, 4), (2, 4, 8), (4, 16, 32), (8, 32, 64))
_AIM = 1_000_000
#: The default of ``stargate_redis_buckets``.
_BUCKETS = 16
_TOPIC = "persistent://public/default/orders"
#: How many keys are hashed, all used equally often.
_KEYS = 100_000


@dataclass(frozen=True)
class Model:
    """Messages per second that one of each carries."""

    shard: float
    worker: float
    partition: float
    #: Bytes of Redis for each pending message.
    bytes_each: float
    #: What a message costs a shard of several, as a multiple of what it costs one alone.
    overhead: float = 1.0

    @classmethod
    def of(
        cls,
        report: Report,
        growth: Growth,
        profile: Profile,
        shards: ShardFigures | None = None,
    ) -> Self | None:
        """Read the measured costs; None where one of them has no figures.

        Arguments:
            shards: the costs on a Cluster; without them, a shard of several is taken to cost no
                more than one alone.
        """
        rates = {
            figure.name: figure.rate.median for group in report.groups for figure in group.figures
        }
        try:
            redis = profile.micros("redis-put-many") + profile.micros("redis-drain-many")
            # Nothing follows their receipts: the loop is all of the worker.
            worker = profile.micros("loop-many")
            partition = rates["bare-websocket"]
        except KeyError:
            return None
        if not growth.levels:
            return None
        overhead = 1.0 if shards is None else shard_overhead(shards)
        return cls(1e6 / redis, 1e6 / worker, partition, growth.levels[-1].total_bytes, overhead)

    def carries(self, shards: int, workers: int, partitions: int) -> tuple[float, str]:
        """Return what so many carry, and what breaks first."""
        stages = {
            "Redis": shards * self._shard(shards) / shard_skew(shards, partitions),
            "workers": workers * self.worker,
            "partitions": partitions * self.partition / skew(partitions),
        }
        first = min(stages, key=stages.__getitem__)
        return stages[first], first

    def needed(self, rate: float) -> tuple[int, int, int]:
        """Return how many of each carry a rate."""
        partitions = ceil(rate / self.partition)
        while partitions * self.partition / skew(partitions) < rate:
            partitions += max(1, partitions // 50)
        shards = ceil(rate / self.shard)
        if shards > 1:
            shards = ceil(rate / self._shard(shards))
        # As many lanes on each shard: else the busiest carries more than its share.
        partitions = ceil(partitions / shards) * shards
        return shards, ceil(rate / self.worker), partitions

    def _shard(self, shards: int) -> float:
        """Return what one of so many carries."""
        return self.shard / self.overhead if shards > 1 else self.shard


def skew(partitions: int) -> float:
    """Return the busiest partition's load as a multiple of the average, by hashing many keys."""
    counts = Counter(each % partitions for each in _hashes())
    return max(counts.values()) * partitions / _KEYS


@cache
def shard_skew(shards: int, lanes: int) -> float:
    """Return the busiest shard's load as a multiple of the average, by the buckets of its lanes.

    Arguments:
        shards: each with as many slots.
        lanes: of one topic, used equally often, in the default number of buckets; in one for each
            lane where there are more shards.
    """
    keyspace = in_buckets("stargate", _BUCKETS if shards <= _BUCKETS else max(shards, lanes))
    keys = (Lane(_TOPIC, index).key(keyspace, "log").encode() for index in range(lanes))
    counts = Counter(key_slot(key) * shards // REDIS_CLUSTER_HASH_SLOTS for key in keys)
    return max(counts.values()) * shards / lanes


def shard_overhead(found: ShardFigures) -> float:
    """Return what a message costs a shard of several, as a multiple of what it costs one alone.

    It is what remains of the busiest shard's CPU when its share of the lanes is taken into account,
    at the number of shards where it is most.

    Raises:
        ValueError: one shard alone was not measured.
    """
    alone = found.busiest(1)
    several = {drain.shards for drain in found.drains} - {1}
    return max(
        (found.busiest(each) * each / (alone * shard_skew(each, found.lanes)) for each in several),
        default=1.0,
    )


def here(found: ShardFigures, drain: Drain) -> tuple[float, str]:
    """Return what the measuring machine must carry, by the costs of its first drain alone.

    Arguments:
        drain: how many shards and workers.

    Returns:
        Messages a second, and what breaks first.
    """
    stages = {
        **_stages(found, drain.shards, drain.workers),
        "the cores": found.busy * found.cores * 1e6 / found.first.machine.median,
    }
    first = min(stages, key=stages.__getitem__)
    return stages[first], first


def on_machines_of_their_own(found: ShardFigures, drain: Drain) -> tuple[float, str]:
    """Return what shards and workers carry where each has a core of its own."""
    stages = _stages(found, drain.shards, drain.workers)
    first = min(stages, key=stages.__getitem__)
    return stages[first], first


def _stages(found: ShardFigures, shards: int, workers: int) -> dict[str, float]:
    """Return what each stage of a drain with results carries."""
    overhead = shard_overhead(found) if shards > 1 else 1.0
    shard = found.first.busiest.median * overhead * shard_skew(shards, found.lanes) / shards
    return {"Redis": 1e6 / shard, "workers": workers * 1e6 / found.first.worker.median}


@cache
def _hashes() -> Sequence[int]:
    dice = Random(_KEYS)
    return [crc32(b"%032x" % dice.getrandbits(128)) for _ in range(_KEYS)]


def render_model(model: Model, sizes: Sequence[tuple[int, int, int]] = _SIZES) -> str:
    """Return the table."""
    words = (
        f"One shard of Redis carries {model.shard:,.0f} messages a second, one worker "
        f"{model.worker:,.0f}, one lane on one partition {model.partition:,.0f} (unbatched, as "
        "measured by the bare loop). Keys spread unevenly, even if all are used equally often: the "
        f"busiest of 64 partitions gets {skew(64):.2f} times the average ({_KEYS:,} keys hashed). "
        f"So do lanes: with 24 of them in {_BUCKETS} buckets, the busiest of 2 shards gets "
        f"{shard_skew(2, 24):.2f} times the average and that of 3 {shard_skew(3, 24):.2f}. A "
        f"message costs a shard of several {model.overhead:.2f} times what it costs one alone."
    )
    lines = [
        words,
        "",
        "| shards | workers | partitions | messages a second | breaks first |",
        "|---|---|---|---|---|",
    ]
    for size in (*sizes, model.needed(_AIM)):
        rate, first = model.carries(*size)
        lines.append(f"| {' | '.join(map(str, size))} | {rate:,.0f} | {first} |")
    hour = _AIM * 3600 * model.bytes_each / 2**40
    words = (
        f"The last line is the smallest system that carries {_AIM:,} a second. While Pulsar is "
        f"away, that rate fills Redis with {_AIM * model.bytes_each / 2**30:.1f} GiB a second, "
        f"{hour:.1f} TiB an hour: an outage exhausts memory first."
    )
    lines += ["", words]
    return "\n".join(lines) + "\n"


def render_drains(found: ShardFigures) -> str:
    """Return the table that compares the model with the measured drains on a Cluster."""
    first = found.first
    words = (
        f"One shard alone spent {first.busiest.median:.0f} µs on each message, one worker "
        f"{first.worker.median:.0f}, and all processes of the machine together "
        f"{first.machine.median:.0f}. Its {found.cores} cores were busy for {found.busy:.0%} of "
        "the time: in the rest, one process waited for another. The model takes that for all lines."
    )
    head = (
        "| shards | workers | the model, here | measured, here | measured/model "
        "| the model, each with a core of its own | breaks first |"
    )
    lines = [words, "", head, "|---|---|---|---|---|---|---|"]
    for drain in found.drains:
        rate, _ = here(found, drain)
        alone, breaks = on_machines_of_their_own(found, drain)
        measured = drain.rate
        lines.append(
            f"| {drain.shards} | {drain.workers} | {rate:,.0f} "
            f"| {measured.median:,.0f} ({measured.low:,.0f} to {measured.high:,.0f}) "
            f"| {measured.median / rate:.2f} | {alone:,.0f} | {breaks} |"
        )
    lines += ["", f"Measured {found.date[:10]} by `python -m benchmarks.shards --write`."]
    return "\n".join(lines) + "\n"
