"""What the clients of a Redis Cluster have in common: which node a command goes to, and errors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ClusterError,
    MovedError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as NoAnswer

from celery_stargate.lanes.passing import passing

__all__ = [
    "FIRST_WAIT",
    "LONGEST_WAIT",
    "NotACluster",
    "goes_by",
    "known_nodes",
    "may_pass",
    "not_in_time",
    "sha_of",
]

#: Seconds before a call is tried again, at first and at most.
FIRST_WAIT, LONGEST_WAIT = 0.05, 0.5

#: What a slot that moves, a failover or a shard that is down makes redis-py raise.
_PASSING = (
    LostConnection,
    NoAnswer,
    OSError,
    ClusterDownError,
    ClusterError,
    TryAgainError,
    MovedError,
    AskError,
    RedisClusterException,
)
#: Commands whose first key is not their first argument: how many arguments are before it.
_BEFORE_KEY = {"EVAL": 2, "EVALSHA": 2}
#: Commands without a key; any master answers them.
_WITHOUT_KEY = frozenset({"ACL", "CLUSTER", "CONFIG", "INFO", "PING", "SCRIPT", "TIME"})


class NotACluster(LostConnection):
    """The URL names a Redis Cluster, and the server is none."""


def goes_by(arguments: Sequence[Any]) -> str | bytes | None:
    """Return the key by whose slot a command finds its node; None for a command without a key.

    redis-py would ask a server for the keys of some commands, each time.
    """
    name = str(arguments[0]).upper()
    if name.partition(" ")[0] in _WITHOUT_KEY:
        return None
    if name == "XREAD":
        place = next(
            place
            for place, each in enumerate(arguments)
            if each in (b"STREAMS", "STREAMS", b"streams", "streams")
        )
    else:
        place = _BEFORE_KEY.get(name, 0)
    key: str | bytes = arguments[place + 1]
    return key


def may_pass(error: BaseException) -> bool:
    """Whether a call may succeed a moment later, maybe at another node.

    Raises:
        NotACluster: instead of that error, if it says so.
    """
    if isinstance(error, NotACluster | AuthenticationError):
        return False
    if isinstance(error, RedisClusterException) and "mode is not enabled" in str(error):
        raise NotACluster(
            "the server is no Redis Cluster (its cluster mode is not enabled), and the URL of the "
            "lanes' Redis names one; use redis:// or rediss:// in stargate_redis_url"
        ) from None
    return isinstance(error, _PASSING) or (isinstance(error, RedisError) and passing(error))


@contextmanager
def known_nodes() -> Iterator[None]:
    """Raise :class:`TryAgainError` where redis-py was sent to a node that it does not know yet.

    A new node is known to clients when its first slot is there; ASK names it before.
    """
    try:
        yield
    except AttributeError as error:
        if error.obj is not None:
            raise
        raise TryAgainError("the slot is being moved to a new node") from None


def not_in_time(error: BaseException) -> LostConnection:
    """Return what to raise for an error that did not pass in time."""
    text = str(error) or type(error).__name__
    if isinstance(error, ClusterDownError) and "not served" not in text:
        text += (
            "; set cluster-require-full-coverage to no, so that the shards that are up go on "
            "without one that is down"
        )
    elif isinstance(error, TryAgainError | AskError | ClusterError):
        text += "; the slot of this lane is being moved to another shard, or its shard is down"
    else:
        text += "; this shard of the Redis Cluster is down, or cannot be reached from here"
    return LostConnection(text)


def sha_of(script: str) -> str:
    """Return the hash by which Redis knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
