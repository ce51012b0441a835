"""The Lua scripts and the only code that runs them."""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pkgutil import get_data
from typing import Any

from redis.asyncio import Redis as AsyncRedis
from redis.commands.core import AsyncScript, Script
from redis.exceptions import NoScriptError

from celery_stargate.lanes.async_cluster import AsyncClusterScript
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry_keys import RegistryKeys
from celery_stargate.lanes.sync_cluster import ClusterScript
from celery_stargate.support.per_process import PerProcess

__all__ = [
    "DEAD_PARTS",
    "LANE_PARTS",
    "Argument",
    "AsyncScripts",
    "Caller",
    "Callers",
    "Run",
    "Scripts",
    "lane_keys",
    "lane_script",
    "registry_script",
    "script_on",
]

#: The parts of a lane, in the order of the scripts' KEYS; the caller's answers come after them.
LANE_PARTS = (
    "log",
    "contexts",
    "deadlines",
    "outcomes",
    "due",
    "lease",
    "meta",
    "tombstones",
    "quarantine",
    "reserved",
)

#: The parts of a lane with its dead letters; they come after those, and the caller's answers.
DEAD_PARTS = ("dead", "dead_letters", "dead_bodies", "dead_counts")

#: The scripts that have ``dead_letters.lua`` before them.
_WITH_DEAD_LETTERS = frozenset(
    {
        *("settle", "expire", "revoke", "give_up", "retire"),
        *("replay", "redo", "discard", "restore", "confirm"),
    }
)

#: The scripts that let an owner send; they have ``sending.lua`` before them.
_WITH_SENDING = frozenset({"read", "note"})

#: Before the name of a script of the registry.
_REGISTRY = "registry/"

#: The scripts that use the list of lanes; they have ``announcement.lua`` before them.
_WITH_LIST = frozenset({"put", "put_many", "retire", f"{_REGISTRY}announce"})

#: An argument of a script; redis-py sends a number as its decimal text.
Argument = str | bytes | int
#: One run of a script: its keys and its arguments.
Run = tuple[Sequence[str], Sequence[Argument]]


def lane_script(name: str) -> str:
    """Return the text of a lane's script, with the common parts before it."""
    return _text(name)


def registry_script(name: str) -> str:
    """Return the text of a script of the registry of lanes and workers."""
    return _text(_REGISTRY + name)


def lane_keys(
    prefix: str,
    lane: Lane,
    caller: str,
    *,
    dead_letters: bool = False,
    listed: bool = False,
) -> list[str]:
    """Return the keys that a lane's script gets.

    Arguments:
        prefix: what all keys begin with (``stargate_prefix``).
        caller: the name of the caller, who has a key for the answer to the last call.
        dead_letters: with the keys of the lane's dead letters; the last argument of the script is
            then :meth:`DeadLetterRules.argument`.
        listed: with the keys of the list of lanes.
    """
    keys = [*_part_keys(prefix, lane), lane.key(prefix, f"answers:{caller}")]
    if dead_letters:
        keys += _dead_keys(prefix, lane)
    if listed:
        keys += _list_keys(prefix, lane.bucket(prefix))
    return keys


class Caller:
    """A caller as the scripts know it: one call at a time, each with a token of its own.

    A script that gets the token of the call before answers as it did before.
    """

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self._numbers = itertools.count(1)

    def token(self) -> str:
        """Return the token of the next call."""
        return f"{self.name}:{next(self._numbers)}"


class Callers:
    """The callers of a process, reused so that there are no more than calls at the same time.

    Each of them has a key in Redis. A forked child has callers of its own.
    """

    def __init__(self) -> None:
        # The ends of a deque need no lock.
        self._free: PerProcess[deque[Caller]] = PerProcess(deque)

    @contextmanager
    def lend(self, count: int = 1) -> Iterator[list[Caller]]:
        """Lend callers for a block that makes one call with each."""
        free = self._free.get()
        lent = [self._take(free) for _ in range(count)]
        try:
            yield lent
        finally:
            free.extend(lent)

    def _take(self, free: deque[Caller]) -> Caller:
        try:
            return free.pop()
        except IndexError:
            return Caller()


class Scripts:
    """Runs scripts from any thread of any process.

    A script is sent by its hash; a Redis that does not know it (after a restart, a failover or
    ``SCRIPT FLUSH``) is sent the text once.

    Arguments:
        connections: to the Redis that holds the lanes.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        # Registering a script hashes its text: once per process is enough.
        self._registered: PerProcess[dict[str, Script | ClusterScript]] = PerProcess(dict)

    def run(self, name: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script.

        Arguments:
            name: of its file, without ``.lua``; ``registry/`` before it for those of the registry.

        Returns:
            What redis-py makes of the script's reply.

        Raises:
            RedisError, OSError: as redis-py raises them.
        """
        script = self._script(name)
        if not isinstance(script, Script):
            return script(keys=keys, args=arguments)
        client: Any = script.registered_client
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        try:
            # As redis-py does, but without looking whether its client is a pipeline.
            return client.execute_command(*command)
        except NoScriptError:
            client.script_load(script.script)
            return client.execute_command(*command)

    def run_many(self, name: str, runs: Sequence[Run]) -> list[Any]:
        """Run a script several times in one round trip.

        Arguments:
            name: as in :meth:`run`.
            runs: keys and arguments of each.

        Returns:
            The reply, or the error, of each.

        Raises:
            RedisError, OSError: the whole pipeline failed.
        """
        script = self._script(name)
        if isinstance(script, ClusterScript):
            return script.run_each(runs)
        with self._connections.sync().pipeline(transaction=False) as pipeline:
            _fill(pipeline, script, runs)
            # With raise_on_error redis-py would show the command, and so the payload, in the error.
            return pipeline.execute(raise_on_error=False)[1:]

    def _script(self, name: str) -> Script | ClusterScript:
        registered = self._registered.get()
        script = registered.get(name)
        if script is None:
            script = registered[name] = self._connections.sync().register_script(_text(name))
        return script


class AsyncScripts:
    """Runs scripts from one event loop, as :class:`Scripts` does from threads.

    Arguments:
        redis: a client of :meth:`Connections.asyncio`.
    """

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._registered: dict[str, AsyncScript | AsyncClusterScript] = {}

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script; arguments, reply and errors are those of :meth:`Scripts.run`."""
        script = self._script(name)
        if not isinstance(script, AsyncScript):
            return await script(keys=keys, args=arguments)
        client: Any = self._redis
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        try:
            return await client.execute_command(*command)
        except NoScriptError:
            await client.script_load(script.script)
            return await client.execute_command(*command)

    async def run_many(self, name: str, runs: Sequence[Run]) -> list[Any]:
        """Run a script several times in one round trip, as :meth:`Scripts.run_many` does."""
        script = self._script(name)
        if isinstance(script, AsyncClusterScript):
            return await script.run_each(runs)
        async with self._redis.pipeline(transaction=False) as pipeline:
            _fill(pipeline, script, runs)
            _, *replies = await pipeline.execute(raise_on_error=False)
        return replies

    def _script(self, name: str) -> AsyncScript | AsyncClusterScript:
        script = self._registered.get(name)
        if script is None:
            script = self._registered[name] = self._redis.register_script(_text(name))
        return script


def _fill(pipeline: Any, script: Script | AsyncScript, runs: Sequence[Run]) -> None:
    # The pipeline loads the script itself: a new connection may lead to a Redis without it.
    pipeline.script_load(script.script)
    for keys, arguments in runs:
        pipeline.evalsha(script.sha, len(keys), *keys, *arguments)


def script_on(redis: Any, name: str) -> Script:
    """Return a script that runs on one client, also inside its transactions.

    Arguments:
        redis: a client of :meth:`Connections.sync`.
        name: as in :meth:`Scripts.run`.
    """
    registered: Script = redis.register_script(_text(name))
    return registered


@cache
def _text(name: str) -> str:
    parts = [] if name.startswith(_REGISTRY) else ["common.lua"]
    if name in _WITH_DEAD_LETTERS:
        parts.append("dead_letters.lua")
    if name in _WITH_LIST:
        parts.append("announcement.lua")
    if name in _WITH_SENDING:
        parts.append("sending.lua")
    return _code("".join(map(_read, [*parts, f"{name}.lua"])))


def _code(text: str) -> str:
    """Leave out the lines that are comments: Redis gets the text again with each pipeline."""
    return "".join(
        line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("--")
    )


def _read(path: str) -> str:
    # importlib.resources would import more modules, and the thread that owns lanes reads this. A
    # process that is forked meanwhile would wait for such an import for ever.
    found = get_data(__package__, f"lua/{path}")
    assert found is not None
    return found.decode()


@lru_cache(maxsize=1 << 16)
def _part_keys(prefix: str, lane: Lane) -> tuple[str, ...]:
    return tuple(lane.key(prefix, part) for part in LANE_PARTS)


@cache
def _list_keys(prefix: str, bucket: int) -> tuple[str, ...]:
    registry = RegistryKeys(prefix, bucket)
    return registry.key("lanes"), registry.key("events")


@lru_cache(maxsize=1 << 12)
def _dead_keys(prefix: str, lane: Lane) -> tuple[str, ...]:
    return tuple(lane.key(prefix, part) for part in DEAD_PARTS)
