"""The client of a Redis Cluster for threads: each call ends within its caller's bound."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.commands.core import CoreCommands
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, SlotNotCoveredError
from redis.retry import Retry

from celery_stargate.lanes.cluster import (
    SilentNodes,
    between_tries,
    may_pass,
    node_for,
    not_in_time,
    sha_of,
)
from celery_stargate.lanes.passing import telling
from celery_stargate.support.bound import bounded, call_bound, time_left
from celery_stargate.support.shared_call import SharedCall

__all__ = ["ClusterClient", "ClusterScript"]

#: The least and the most time, in seconds, that a try gets: a node that has silently died leaves
#: time for the one that takes its place.
_LEAST_TRY, _LONGEST_TRY = 0.25, 5.0

#: More masters than a Cluster has: a cursor tells the master, too.
_MASTERS = 1024

_Result = TypeVar("_Result")
#: Keys and arguments.
_Run = tuple[Sequence[Any], Sequence[Any]]

#: redis-py's methods for all commands; their types are of its own clients.
_Commands: Any = CoreCommands
_Base: Any = RedisCluster
_Node: Any = ClusterNode


class _Cluster(_Base):  # type: ignore[misc]
    """redis-py's client, which connects while the shard of the first slot is down."""

    def command(self) -> dict[str, Any]:
        """Return no commands: redis-py asks its first master for them, and again on need.

        It needs them for commands without ``target_nodes`` only.
        """
        return {}


class ClusterClient(_Commands):  # type: ignore[misc]
    """A client of a Redis Cluster whose calls end within the bound of their caller.

    redis-py's client finds the nodes and follows MOVED, ASK and TRYAGAIN. It connects when it is
    made, so it is made by the first call.

    Arguments:
        nodes: host and port of some nodes, by which the others are found.
        pool: makes the pool of a node, of the keyword arguments that redis-py gives.
        protocol: the version of Redis' protocol that the pools speak; None for redis-py's own.
    """

    def __init__(
        self,
        nodes: Sequence[tuple[str, int]],
        pool: Callable[..., Any],
        protocol: int | str | None = None,
    ) -> None:
        self._nodes = nodes
        self._pool = pool
        # From version 3 on redis-py gives the pools handlers, which an older one refuses.
        self._protocol = {} if protocol is None else {"protocol": int(protocol)}
        self._made: Any = None
        self._connecting = SharedCall(self._connect, (RedisError, RedisClusterException, OSError))
        self._silent = SilentNodes()

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Run a command.

        Raises:
            RedisError, OSError: as redis-py raises them; what passes only after the bound is a
                ConnectionError.
        """
        return self.insist(lambda client: _run(client, self._silent, arguments, options))

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """Return a pipeline: with ``transaction`` of one slot's keys, else of any keys."""
        if transaction:
            return self.insist(lambda client: client.pipeline(transaction=True))
        return _ClusterPipeline(self)

    def register_script(self, script: str) -> ClusterScript:
        """Return a script that runs on the node of its keys."""
        return ClusterScript(self, script)

    def masters(self) -> list[Any]:
        """Return a client of each master.

        Raises:
            ConnectionError: no node answers.
        """
        return self.insist(
            lambda client: [client.get_redis_connection(node) for node in client.get_primaries()]
        )

    def scan(self, cursor: int | str = 0, match: Any = None, count: int | None = None) -> Any:
        """Look at some keys, one master after another; as redis-py's method of the name."""
        place, inner = int(cursor) % _MASTERS, int(cursor) // _MASTERS

        def look(client: Any) -> Any:
            masters = sorted(client.get_primaries(), key=lambda node: str(node.name))
            node = client.get_redis_connection(masters[min(place, len(masters) - 1)])
            return len(masters), node.scan(inner, match, count)

        masters, (found, keys) = self.insist(look)
        if found:
            return found * _MASTERS + place, keys
        return (place + 1 if place + 1 < masters else 0), keys

    def scan_iter(self, match: Any = None, count: int | None = None) -> Iterator[bytes]:
        """Return all keys; as redis-py's method of the name."""
        cursor = 0
        while True:
            cursor, keys = self.scan(cursor, match, count)
            yield from keys
            if not cursor:
                return

    def close(self) -> None:
        """Close the connections; a later call connects again."""
        made, self._made = self._made, None
        if made is not None:
            made.close()
            made.disconnect_connection_pools()

    def insist(self, call: Callable[[Any], _Result]) -> _Result:
        """Call until it succeeds, fails for good, or the bound is over."""
        waits = between_tries()
        told: Exception | None = None
        with call_bound():
            while True:
                try:
                    with bounded(min(max(time_left() / 2, _LEAST_TRY), _LONGEST_TRY)):
                        return call(self._made or self._connecting.result())
                except (RedisError, RedisClusterException, OSError) as error:
                    if not may_pass(error):
                        raise
                    wait = waits.next()
                    told = telling(error, told)
                    if time_left() <= wait:
                        raise not_in_time(told) from error
                time.sleep(wait)

    def _connect(self) -> Any:
        if self._made is None:
            host, port = random.choice(self._nodes)  # noqa: S311  # no secret
            self._made = _Cluster(
                url=f"redis://{_bracketed(host)}:{port}",
                startup_nodes=[_Node(*each) for each in self._nodes],
                connection_pool_class=self._pool,
                require_full_coverage=False,
                retry=Retry(NoBackoff(), 0),
                **self._protocol,
            )
        return self._made


class ClusterScript:
    """A script, run on the node of its keys; a node that does not know it gets the text."""

    def __init__(self, client: ClusterClient, script: str) -> None:
        self.script = script
        self.sha = sha_of(script)
        self._client = client

    def __call__(
        self, keys: Sequence[Any] = (), args: Sequence[Any] = (), client: Any = None
    ) -> Any:
        """Run it, or put it into a pipeline's transaction."""
        if client is not None and client is not self._client:
            return client.execute_command("EVAL", self.script, len(keys), *keys, *args)
        try:
            return self._client.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return self._client.execute_command("EVAL", self.script, len(keys), *keys, *args)

    def run_each(self, runs: Sequence[_Run]) -> list[Any]:
        """Run it several times; return the reply, or the error, of each.

        What one lane is given stays in order: runs after an error have it, too. Another lane goes
        on, and has its part of the time: its shard may be up. What failed is tried once more, with
        the time that is left; the scripts know a repeat.
        """
        lanes: dict[Any, list[int]] = {}
        for place, (keys, _) in enumerate(runs):
            lanes.setdefault(keys[0], []).append(place)
        replies: list[Any] = [None] * len(runs)
        with call_bound():
            for part in (2, 1):
                failed: dict[Any, list[int]] = {}
                for number, (lane, places) in enumerate(lanes.items()):
                    with bounded(time_left() / part / (len(lanes) - number)):
                        rest = self._run_lane(runs, places, replies)
                    if rest and may_pass(replies[rest[0]]):
                        failed[lane] = rest
                lanes = failed
        return replies

    def _run_lane(
        self,
        runs: Sequence[tuple[Sequence[Any], Sequence[Any]]],
        places: list[int],
        replies: list[Any],
    ) -> list[int]:
        """Run those of one lane up to the first error; return the places of it and of the rest."""
        for done, place in enumerate(places):
            keys, arguments = runs[place]
            try:
                replies[place] = self(keys=keys, args=arguments)
            except (RedisError, OSError) as error:
                for each in places[done:]:
                    replies[each] = error
                return places[done:]
        return []


class _ClusterPipeline(_Commands):  # type: ignore[misc]
    """Commands of any keys; each goes to its node, in their order."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._commands = []

    def execute_command(self, *arguments: Any, **options: Any) -> Self:
        """Note a command."""
        self._commands.append((arguments, options))
        return self

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run the commands; return the reply of each.

        Arguments:
            raise_on_error: raise the first error, and run none of those after it; else errors are
                among the replies.
        """
        commands, self._commands = self._commands, []
        replies: list[Any] = []
        with call_bound():
            for arguments, options in commands:
                try:
                    replies.append(self._client.execute_command(*arguments, **options))
                except (RedisError, OSError) as error:
                    if raise_on_error:
                        raise
                    replies.append(error)
        return replies


def _run(
    client: Any, silent: SilentNodes, arguments: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    try:
        node = node_for(client, arguments)
    except SlotNotCoveredError:
        client.nodes_manager.initialize()
        raise
    with silent.watched(str(node.name)):
        return client.execute_command(*arguments, target_nodes=node, **options)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
