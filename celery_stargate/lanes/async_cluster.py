"""The client of a Redis Cluster for event loops: each command ends in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Self

from redis._parsers import AsyncCommandsParser
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.commands.core import AsyncCoreCommands
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, SlotNotCoveredError
from redis.exceptions import TimeoutError as NoAnswer

from celery_stargate.lanes.cluster import (
    SilentNodes,
    between_tries,
    goes_by,
    may_pass,
    node_for,
    not_in_time,
    sha_of,
)
from celery_stargate.lanes.passing import note_reason, telling
from celery_stargate.support.bound import USUAL

__all__ = ["AsyncClusterClient", "AsyncClusterScript"]

#: How many commands of one group are under way at the same time.
_AT_ONCE = 32

#: redis-py's methods for all commands; their types are of its own clients.
_Commands: Any = AsyncCoreCommands


class AsyncClusterClient(_Commands):  # type: ignore[misc]
    """A client of a Redis Cluster, each of whose commands ends within 5 s.

    redis-py's client finds the nodes and follows MOVED, ASK and TRYAGAIN.

    Arguments:
        make: makes redis-py's client; called in the event loop, by the first call.
    """

    def __init__(self, make: Callable[[], RedisCluster]) -> None:
        self._make = make
        self._made: Any = None
        self._silent = SilentNodes()

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Run a command.

        Raises:
            RedisError, OSError: as redis-py raises them; what does not succeed within the bound is
                a ConnectionError.
        """
        failed: Exception | None = None
        waits = between_tries()
        try:
            async with asyncio.timeout(USUAL):
                while True:
                    try:
                        return await self._run(arguments, options)
                    except (RedisError, RedisClusterException, OSError) as error:
                        if not may_pass(error):
                            raise
                        failed = telling(error, failed)
                        note_reason(not_in_time(failed))
                    await asyncio.sleep(waits.next())
        except TimeoutError as late:
            raise not_in_time(failed or late) from failed

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """Return a pipeline of any keys, which is no transaction."""
        if transaction:
            raise NotImplementedError("a transaction of a Cluster")
        return _AsyncClusterPipeline(self)

    def register_script(self, script: str) -> AsyncClusterScript:
        """Return a script that runs on the node of its keys."""
        return AsyncClusterScript(self, script)

    async def aclose(self) -> None:
        """Close the connections."""
        made, self._made = self._made, None
        if made is not None:
            await made.aclose()
            # After an error redis-py's own would close nothing.
            await made.nodes_manager.aclose()

    async def _run(self, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        if self._made is None:
            self._made = self._make()
            self._made.commands_parser = _LazyParser()
        client = self._made
        await client.initialize()
        try:
            node = node_for(client, arguments)
        except SlotNotCoveredError:
            await client.nodes_manager.initialize()
            raise
        with self._silent.watched(node.name):
            return await client.execute_command(*arguments, target_nodes=node, **options)


class _LazyParser(AsyncCommandsParser):
    """Asks for the commands of Redis on need only, as for one without ``target_nodes``.

    redis-py asks its first master whenever it connects, and could not while that shard is down.
    """

    async def initialize(self, node: ClusterNode | None = None) -> None:
        """Note a node, or ask the one that was noted."""
        if node is not None:
            self.node = node
        else:
            await super().initialize()


class AsyncClusterScript:
    """A script, run on the node of its keys; a node that does not know it gets the text."""

    def __init__(self, client: AsyncClusterClient, script: str) -> None:
        self.script = script
        self.sha = sha_of(script)
        self._client = client

    async def __call__(self, keys: Sequence[Any] = (), args: Sequence[Any] = ()) -> Any:
        """Run it."""
        run = self._client.execute_command
        try:
            return await run("EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await run("EVAL", self.script, len(keys), *keys, *args)

    async def run_each(self, runs: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        """Run it several times; return the reply, or the error, of each.

        What one lane is given stays in order; lanes are beside one another.
        """
        calls = [(keys[0], partial(self, keys, arguments)) for keys, arguments in runs]
        return await _in_order(calls)


class _AsyncClusterPipeline(_Commands):  # type: ignore[misc]
    """Commands of any keys; each goes to its node, those of one key in their order."""

    def __init__(self, client: AsyncClusterClient) -> None:
        self._client = client
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._commands = []

    def execute_command(self, *arguments: Any, **options: Any) -> Self:
        """Note a command."""
        self._commands.append((arguments, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run the commands; return the reply of each, or raise the first error."""
        commands, self._commands = self._commands, []
        run = self._client.execute_command
        replies = await _in_order(
            [
                (goes_by(arguments), partial(run, *arguments, **options))
                for arguments, options in commands
            ]
        )
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, RedisError | OSError):
                # A mistake in the program, not a server's answer.
                raise reply
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


async def _in_order(calls: Sequence[tuple[Hashable, Callable[[], Any]]]) -> list[Any]:
    """Run calls; return the reply, or the error, of each.

    Those of one key come one after another: where its node does not answer one of them, the rest
    have the same error. Others are beside one another, a bounded number at the same time.
    """
    keys: dict[Hashable, list[int]] = {}
    for place, (key, _) in enumerate(calls):
        keys.setdefault(key, []).append(place)
    replies: list[Any] = [None] * len(calls)
    room = asyncio.Semaphore(_AT_ONCE)

    async def run(places: Sequence[int]) -> None:
        for done, place in enumerate(places):
            try:
                async with room:
                    replies[place] = await calls[place][1]()
            except (LostConnection, NoAnswer, OSError) as error:
                for each in places[done:]:
                    replies[each] = error
                return
            except Exception as error:  # noqa: BLE001  # it is returned
                replies[place] = error

    await asyncio.gather(*map(run, keys.values()))
    return replies
