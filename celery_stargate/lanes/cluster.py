"""What the clients of a Redis Cluster have in common: which node a command goes to, and errors."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
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
from celery_stargate.support.backoff import Backoff
from celery_stargate.support.bound import time_left

__all__ = [
    "NotACluster",
    "SilentNodes",
    "between_tries",
    "goes_by",
    "may_pass",
    "node_for",
    "not_in_time",
    "sha_of",
]

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


#: Seconds between two calls to a node that does not answer. After each of them redis-py reads the
#: whole table of slots again, which takes an event loop about 30 ms.
_PAUSE = 0.5
#: Seconds without an answer after which a node is silent.
_FAIR = 0.2


class NotACluster(LostConnection):
    """The URL names a Redis Cluster, and the server is none."""


class SilentNodes:
    """Nodes that did not answer: each is tried by one call now and then, and the others wait.

    Arguments:
        monotonic: the clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        #: By name: when it may be tried again, and why it failed.
        self._nodes: dict[str, tuple[float, str]] = {}

    @contextmanager
    def watched(self, name: str) -> Iterator[None]:
        """Note how a call to a node ends.

        Raises:
            ConnectionError: at once, if the node did not answer a moment ago.
        """
        known, given = self._nodes.get(name), time_left()
        if known is not None:
            until, why = known
            if self._monotonic() < until:
                raise LostConnection(why)
            self._nodes[name] = self._monotonic() + _PAUSE, why
        try:
            yield
        except (LostConnection, NoAnswer, OSError) as error:
            # A call that had next to no time says nothing about the node.
            if given >= _FAIR or not isinstance(error, NoAnswer | TimeoutError):
                self._nodes[name] = self._monotonic() + _PAUSE, str(error)
            raise
        except AttributeError as error:
            if error.obj is not None:
                raise
            # A new node is known to redis-py when its first slot is there; ASK names it before.
            raise TryAgainError("the slot is being moved to a new node") from None
        if self._nodes:
            self._nodes.pop(name, None)


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


def node_for(client: Any, arguments: Sequence[Any]) -> Any:
    """Return the node that a command goes to.

    Arguments:
        client: redis-py's client of a Cluster.
        arguments: of the command.

    Raises:
        SlotNotCoveredError: the client's table of slots has none for its key.
    """
    key = goes_by(arguments)
    if key is None:
        return random.choice(client.get_primaries())  # noqa: S311  # no secret
    return client.get_node_from_key(key)


def between_tries() -> Backoff:
    """Return how long one call waits before each further try."""
    return Backoff(0.05, 0.5)


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


def not_in_time(error: BaseException) -> LostConnection:
    """Return what to raise for an error that did not pass in time."""
    text = str(error) or type(error).__name__
    down = isinstance(error, ClusterDownError)
    if down and "not served" not in text:
        text += (
            "; set cluster-require-full-coverage to no, so that the shards that are up go on "
            "without one that is down"
        )
    elif not down and isinstance(error, TryAgainError | AskError | ClusterError):
        text += "; the slot of this lane is being moved to another shard, or its shard is down"
    else:
        text += "; this shard of the Redis Cluster is down, or cannot be reached from here"
    return LostConnection(text)


def sha_of(script: str) -> str:
    """Return the hash by which Redis knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
