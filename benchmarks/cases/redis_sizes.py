"""A hash and a sorted set of a million entries cost Redis more for each new one than small ones.

A put looks a context up in a hash, adds it there, and adds its deadline to a sorted set, which is a
hash and a skip list (``src/t_zset.c`` in Redis' sources).
"""

from __future__ import annotations

import uuid
from itertools import count
from statistics import median
from typing import Any

from redis import Redis

from .findings import Finding
from .redis_of_its_own import redis_url

__all__ = ["measure"]

_SMALL, _LARGE = 1_000, 1_000_000
#: How many are added in a round, and how many rounds there are.
_ADDED, _ROUNDS = 3_000, 5
_BATCH = 10_000
_HASH, _SET = "case:contexts", "case:deadlines"
_RECORD = b"x" * 200
_COMMANDS = ("hget", "hset", "zadd")


def measure(url: str) -> Finding:
    """Compare the three commands of a new entry beside a thousand others and beside a million."""
    client: Any = Redis.from_url(url)
    scores = count()
    _fill(client, _SMALL, scores)
    small = _micros(client, scores)
    _fill(client, _LARGE - _SMALL, scores)
    large = _micros(client, scores)
    client.delete(_HASH, _SET)
    client.close()
    figures = {
        f"`{name.upper()}`": f"{after:.2f} µs of Redis' CPU, not {before:.2f}"
        for name, before, after in zip(_COMMANDS, small, large, strict=True)
    }
    title = "Redis' own structures cost more with a million entries than with 1,000"
    return Finding("redis_sizes", title, figures)


def _fill(client: Any, number: int, scores: count[int]) -> None:
    for begin in range(0, number, _BATCH):
        names = [str(uuid.uuid4()) for _ in range(min(_BATCH, number - begin))]
        with client.pipeline(transaction=False) as pipeline:
            pipeline.hset(_HASH, mapping=dict.fromkeys(names, _RECORD))
            pipeline.zadd(_SET, {name: next(scores) for name in names})
            pipeline.execute()


def _micros(client: Any, scores: count[int]) -> list[float]:
    """Return the µs of each command: the medians of the rounds."""
    rounds = []
    for _ in range(_ROUNDS):
        names = [str(uuid.uuid4()) for _ in range(_ADDED)]
        client.config_resetstat()
        with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hget(_HASH, name)
                pipeline.hset(_HASH, name, _RECORD)
                pipeline.zadd(_SET, {name: next(scores)})
            pipeline.execute()
        stats = client.info("commandstats")
        rounds.append([float(stats[f"cmdstat_{each}"]["usec_per_call"]) for each in _COMMANDS])
        client.hdel(_HASH, *names)
        client.zrem(_SET, *names)
    return [median(each) for each in zip(*rounds, strict=True)]


if __name__ == "__main__":
    with redis_url() as url:
        print(measure(url))
