"""The Redis that holds the lanes: does it keep what it is given?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.operations.doctor.finding import Check, Problem, error, note, warning

__all__ = ["REDIS_CHECKS", "RedisFacts", "gather_redis"]

#: ``XTRIM … MINID``, which the scripts need.
_MIN_VERSION = (6, 2)
_PINGS = 5


@dataclass(frozen=True, kw_only=True)
class RedisFacts:
    """What the server says of itself."""

    #: ``INFO``; empty if the user may not ask.
    info: Mapping[str, Any] = field(default_factory=dict)
    #: ``CONFIG GET`` of what the checks need; None if the user may not ask.
    config: Mapping[str, str] | None = None
    #: Whether the URL names a Redis Cluster.
    in_buckets: bool = False
    #: What the user may not do, of what the lanes need.
    denied: tuple[str, ...] = ()
    #: The median of some pings, in seconds.
    latency: float = 0.0
    #: The server's time minus ours, in seconds.
    clock_ahead: float = 0.0

    @property
    def holds_data(self) -> bool:
        """Whether it is a server; a Sentinel knows few commands."""
        return self.info.get("redis_mode") != "sentinel"


def gather_redis(
    redis: Redis,
    prefix: str,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.perf_counter,
) -> RedisFacts:
    """Ask the server.

    It writes some keys under the prefix and deletes them, to see what the user may do.

    Arguments:
        redis: a sync client.
        prefix: of the lanes' keys.
        clock: this host's time, epoch seconds.
        monotonic: the clock of latencies, in seconds.

    Raises:
        RedisError, OSError: it does not answer.
    """
    client: Any = redis
    client.ping()
    try:
        info = client.info()
    except NoPermissionError:
        info = {}
    if info.get("redis_mode") == "sentinel":
        return RedisFacts(info=info)
    latencies = []
    for _ in range(_PINGS):
        began = monotonic()
        client.ping()
        latencies.append(monotonic() - began)
    began = clock()
    seconds, microseconds = client.time()
    ahead = seconds + microseconds / 1e6 - (began + clock()) / 2
    try:
        config = client.config_get(
            *("maxmemory-policy", "appendonly", "appendfsync", "save"),
            "cluster-require-full-coverage",
        )
    except RedisError:
        config = None
    # One refuses writes, whoever asks.
    replica = info.get("role") == "slave"
    return RedisFacts(
        info=info,
        config=config,
        in_buckets="{" in prefix,
        denied=() if replica else _denied(client, RegistryKeys(prefix).key("doctor")),
        latency=statistics.median(latencies),
        clock_ahead=ahead,
    )


def _denied(client: Any, key: str) -> tuple[str, ...]:
    """Return which commands, of those that the lanes need, the user may not run on such a key."""
    hashes, scores, stream = f"{key}:h", f"{key}:z", f"{key}:x"
    commands: list[tuple[Any, ...]] = [
        ("SET", key, "1", "PX", "10000"),
        ("GET", key),
        ("EXPIRE", key, "10"),
        ("HSET", hashes, "a", "1"),
        ("HGET", hashes, "a"),
        ("ZADD", scores, "1", "a"),
        ("ZRANGEBYSCORE", scores, "0", "1"),
        ("XADD", stream, "1-0", "a", "b"),
        ("XREAD", "COUNT", "1", "STREAMS", stream, "0-0"),
        ("XTRIM", stream, "MAXLEN", "0"),
        ("EVAL", "return redis.call('GET', KEYS[1])", "1", key),
        ("SCRIPT LOAD", "return 1"),
        ("PUBLISH", key, "1"),
        ("INFO", "memory"),
        ("DEL", key, hashes, scores, stream),
    ]
    with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies = pipeline.execute(raise_on_error=False)
    return tuple(
        command[0]
        for command, reply in zip(commands, replies, strict=True)
        if isinstance(reply, NoPermissionError) or "ACL failure" in str(reply)
    )


def _version(facts: RedisFacts) -> Iterable[Problem]:
    version = str(facts.info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if version and numbers < _MIN_VERSION:
        yield error(
            f"Redis is version {version}",
            "the scripts of the lanes need Redis 6.2 or newer",
            "upgrade the server to Redis 6.2 or newer",
        )


def _topology(facts: RedisFacts) -> Iterable[Problem]:
    mode = facts.info.get("redis_mode")
    if mode == "sentinel":
        yield error(
            "the URL leads to a Redis Sentinel, not to a server",
            "a Sentinel holds no data: no message can be recorded",
            "set stargate_redis_url to the server that holds the data",
        )
    if mode == "cluster" and not facts.in_buckets:
        yield error(
            "the URL names a single server, and that is a node of a Redis Cluster",
            "lanes whose slots are on other nodes cannot be used, and no worker can wait for them",
            "write rediscluster:// in stargate_redis_url",
        )
    if facts.in_buckets and (facts.config or {}).get("cluster-require-full-coverage") == "yes":
        yield warning(
            "the Redis Cluster has cluster-require-full-coverage yes",
            "one shard that is down stops the lanes of all shards",
            "redis-cli CONFIG SET cluster-require-full-coverage no, on each node",
        )
    if facts.info.get("role") == "slave":
        yield error(
            "the URL leads to a replica",
            "a replica is read-only: no message can be recorded",
            "set stargate_redis_url to the master, "
            f"{facts.info.get('master_host')}:{facts.info.get('master_port')}",
        )


def _eviction(facts: RedisFacts) -> Iterable[Problem]:
    policy = facts.info.get("maxmemory_policy") or (facts.config or {}).get("maxmemory-policy")
    if policy in (None, "noeviction"):
        return
    why = "when Redis is full it throws pending messages away, and nobody is told"
    mend = "redis-cli CONFIG SET maxmemory-policy noeviction"
    if facts.info.get("maxmemory"):
        yield error(f"maxmemory-policy is {policy}, and maxmemory is set", why, mend)
    else:
        yield warning(f"maxmemory-policy is {policy}; maxmemory is not set yet", why, mend)


def _persistence(facts: RedisFacts) -> Iterable[Problem]:
    config = facts.config or {}
    append_only = bool(facts.info.get("aof_enabled")) or config.get("appendonly") == "yes"
    if append_only:
        if config.get("appendfsync") == "no":
            yield warning(
                "appendfsync is no",
                "a power failure loses about the last 30 seconds of messages",
                "redis-cli CONFIG SET appendfsync everysec",
            )
        return
    if facts.config is None:
        return
    if config.get("save"):
        yield warning(
            "Redis writes snapshots only (appendonly no)",
            "a crash loses every message since the last snapshot",
            "redis-cli CONFIG SET appendonly yes",
        )
    else:
        yield error(
            "Redis keeps nothing on disk (appendonly no, no save)",
            "a restart loses every message that is pending",
            "redis-cli CONFIG SET appendonly yes",
        )


def _writes(facts: RedisFacts) -> Iterable[Problem]:
    for name in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status"):
        if facts.info.get(name, "ok") != "ok":
            yield error(
                f"{name} is {facts.info[name]}",
                "Redis cannot write to its disk, and may refuse messages (MISCONF)",
                "free space on Redis' disk, or mend its permissions; see Redis' log",
            )


def _replication(facts: RedisFacts) -> Iterable[Problem]:
    if facts.info.get("role") == "master" and facts.info.get("connected_slaves"):
        yield note(
            f"{facts.info['connected_slaves']} replicas follow asynchronously",
            "a failover may lose the last writes; the owners notice that and send again",
            "redis-cli CONFIG SET min-replicas-to-write 1",
        )


def _access(facts: RedisFacts) -> Iterable[Problem]:
    if facts.denied:
        yield error(
            f"the user may not run {', '.join(facts.denied)}",
            "recording, sending or settling messages fails",
            "redis-cli ACL SETUSER <user> ~<stargate_prefix>* &* +@all -@dangerous +info",
        )


def _latency(facts: RedisFacts) -> Iterable[Problem]:
    if facts.latency > 0.02:
        yield warning(
            f"a PING takes {facts.latency * 1000:.0f} ms",
            "each delay() takes at least that long",
            "run Redis near its callers; look for slow commands: redis-cli SLOWLOG GET",
        )


def _memory(facts: RedisFacts) -> Iterable[Problem]:
    limit = facts.info.get("maxmemory") or 0
    used = facts.info.get("used_memory") or 0
    if not limit:
        return
    share = used / limit
    found = f"Redis uses {share:.0%} of its maxmemory of {limit >> 20} MB"
    why = "a full Redis refuses new messages: delay() raises StoreUnavailable"
    mend = "redis-cli CONFIG SET maxmemory <bytes>, or set stargate_max_backlog"
    if share > 0.95:
        yield error(found, why, mend)
    elif share > 0.8:
        yield warning(found, why, mend)


def _clock(facts: RedisFacts) -> Iterable[Problem]:
    if abs(facts.clock_ahead) > 5.0:
        way = "ahead of" if facts.clock_ahead > 0 else "behind"
        yield warning(
            f"Redis' clock is {abs(facts.clock_ahead):.0f} s {way} this host's",
            "deadlines go by Redis' clock; expiry of tokens and Celery's ETA by this host's",
            "run an NTP client on both hosts",
        )


REDIS_CHECKS: list[Check[RedisFacts]] = [
    Check("redis-version", "Redis is new enough", _version),
    Check("redis-topology", "the URL leads to a server that takes writes", _topology),
    Check("redis-eviction", "Redis throws nothing away", _eviction),
    Check("redis-persistence", "Redis keeps its data across a restart", _persistence),
    Check("redis-disk", "Redis can write to its disk", _writes),
    Check("redis-replication", "Redis has no replicas that lag", _replication),
    Check("redis-acl", "the user may do what the lanes need", _access),
    Check("redis-latency", "Redis answers fast", _latency),
    Check("redis-memory", "Redis has memory left", _memory),
    Check("redis-clock", "Redis' clock is this host's", _clock),
]
