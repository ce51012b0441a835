"""The simulated Redis, and a client of it that stands where redis-py's does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from hashlib import sha1
from typing import Any, Protocol, Self

from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    OutOfMemoryError,
    ReadOnlyError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from celery_stargate.lanes.scripts import lane_script, registry_script
from tests.simulation.faults import Faults
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.redis_model import RedisModel

__all__ = ["RedisServer", "SimulatedRedis"]

#: What the server's clock shows when the simulation begins, in ms.
EPOCH_MS = 1_700_000_000_000
#: After which a client gives a command up, in seconds; as `lanes/store.py` has it.
_SOCKET_TIMEOUT = 5.0

_LANE = (
    *("put", "put_many", "lease", "release", "retire", "tick", "read", "note", "generation"),
    *("set_aside", "reserve"),
    *("settle", "complete", "expire", "revoke", "due", "finish", "give_up", "confirm"),
)
_REGISTRY = ("announce", "heartbeat")
#: Script → whether it is a lane's, and its name.
_NAMES = {
    **{lane_script(name): (True, name) for name in _LANE},
    **{registry_script(name): (False, name) for name in _REGISTRY},
}


@cache
def _sha(script: str) -> str:
    return sha1(script.encode()).hexdigest()


#: After these, a read that blocks may have something to tell.
_APPENDING = {"put", "put_many", "announce", "xadd", "pipeline"}


class World(Protocol):
    """What the servers need to know of the world."""

    loop: VirtualLoop
    faults: Faults
    #: Whether the run is over, and nothing may happen any more.
    over: bool

    def latency(self) -> float:
        """Draw how long something takes on its way, in seconds."""

    def strike(self, process: Process, where: str) -> bool:
        """Crash or pause a process here, perhaps; return whether it was done."""

    def note(self, text: str) -> None:
        """Write a line of the trace."""


class RedisServer:
    """The server: a model of the data, a clock, and whether it can be reached.

    Arguments:
        watch: is told of each script that was run: its name, keys, arguments and reply.
    """

    def __init__(
        self,
        world: World,
        watch: Callable[[str, Sequence[str], Sequence[Any], Any], None],
    ) -> None:
        self.model = RedisModel(self.now_ms)
        self.skew_ms = 0
        #: None, or how it is away: "refuses" or "hangs".
        self.away: str | None = None
        self._world = world
        self._watch = watch
        self._blocked: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []

    def now_ms(self) -> int:
        """The server's clock."""
        return EPOCH_MS + int(self._world.loop.now * 1000) + self.skew_ms

    def run_script(self, is_lane: bool, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script."""
        if not is_lane:
            return self.model.registry(name, keys, args)
        reply = self.model.script(name, keys, args)
        self._watch(name, keys, args, reply)
        return reply

    def block(self, future: asyncio.Future[Any], read: Callable[[], Any], seconds: float) -> None:
        """Answer a read when it finds something, at the latest after some seconds."""
        self._blocked.append((future, read))
        self._world.loop.outside(seconds, _answer, future, [])

    def wake(self) -> None:
        """Answer those whose reads find something now."""
        still = []
        for future, read in self._blocked:
            if future.done():
                continue
            if found := read():
                self._world.loop.outside(self._world.latency(), _answer, future, found)
            else:
                still.append((future, read))
        self._blocked = still

    def leave(self, how: str) -> None:
        """Be away, and cut all connections."""
        self.away = how
        blocked, self._blocked = self._blocked, []
        for future, _ in blocked:
            _fail(future, RedisConnectionError("the server went away"))


class SimulatedRedis:
    """A client of the server, in a process.

    Arguments:
        retries: how often a command is repeated whose reply did not come.
    """

    def __init__(
        self, world: World, server: RedisServer, process: Process, retries: int = 1
    ) -> None:
        self._world = world
        self._server = server
        self._process = process
        self._retries = retries

    def register_script(self, script: str) -> _Script:
        """Return what runs a script: called with ``keys`` and ``args``."""
        return _Script(self._server, self._call, script)

    async def get(self, key: str) -> Any:
        return await self._call("get", partial(self._server.model.get, key))

    async def hget(self, key: str, name: str) -> Any:
        return await self._call("hget", partial(self._server.model.hget, key, name))

    async def hmget(self, key: str, *names: str) -> Any:
        return await self._call("hmget", partial(self._server.model.hmget, key, *names))

    async def hset(self, key: str, name: str, value: str) -> Any:
        return await self._call("hset", partial(self._server.model.hset, key, name, value))

    async def hdel(self, key: str, name: str) -> Any:
        return await self._call("hdel", partial(self._server.model.hdel, key, name))

    async def xadd(self, key: Any, fields: Mapping[Any, Any], **options: Any) -> Any:
        return await self._call("xadd", partial(self._server.model.xadd, key, fields, **options))

    async def xrange(self, key: Any, first: str, last: str, count: int) -> Any:
        return await self._call(
            "xrange", partial(self._server.model.xrange, key, first, last, count)
        )

    async def xrevrange(self, key: Any, count: int) -> Any:
        return await self._call("xrevrange", partial(self._server.model.xrevrange, key, count))

    async def zrange(self, key: str, start: int, end: int) -> Any:
        return await self._call("zrange", lambda: list(self._server.model.sorted_set(key)))

    async def delete(self, *keys: Any) -> Any:
        return await self._call("delete", partial(self._server.model.delete, *keys))

    async def info(self, section: str) -> dict[str, Any]:
        return await self._call("info", lambda: {"maxmemory": 0})  # type: ignore[no-any-return]

    async def xread(self, streams: Mapping[Any, Any], count: int, block: int) -> Any:
        read = partial(self._server.model.xread, dict(streams), count)
        return await self._call("xread", read, block / 1000)

    def pipeline(self, transaction: bool) -> _Pipeline:
        return _Pipeline(self._server, self._call)

    async def aclose(self) -> None:
        """Nothing is to be closed."""

    async def _call(self, what: str, run: Callable[[], Any], block: float = 0.0) -> Any:
        for _ in range(self._retries):
            try:
                return await self._attempt(what, run, block)
            except (RedisConnectionError, RedisTimeoutError):
                await asyncio.sleep(0.05)
        return await self._attempt(what, run, block)

    async def _attempt(self, what: str, run: Callable[[], Any], block: float) -> Any:
        world, server = self._world, self._server
        loop, faults = world.loop, world.faults
        if faults.at_steps and world.strike(self._process, what):
            await asyncio.sleep(0)
        if world.over:
            raise RedisConnectionError("the run is over")
        if server.away is not None:
            if server.away == "hangs":
                await asyncio.sleep(_SOCKET_TIMEOUT)
                raise RedisTimeoutError("no answer")
            await asyncio.sleep(world.latency())
            raise RedisConnectionError("nobody listens")
        future: asyncio.Future[Any] = loop.create_future()
        fault = faults.pick("redis")
        if fault is None:
            loop.outside(world.latency(), self._arrive, future, what, run, block, False)
        else:
            world.note(f"{self._process.name}: {what}: {fault}")
            if fault == "command refused":
                error = faults.random.choice((ReadOnlyError, OutOfMemoryError))
                loop.outside(world.latency(), _fail, future, error("not now"))
            elif fault == "reply lost":
                loop.outside(world.latency(), self._arrive, future, what, run, 0.0, True)
            else:
                if fault == "command late":
                    # The client gives it up, and then it is done all the same, perhaps after it
                    # was repeated.
                    late = _SOCKET_TIMEOUT * (1 + faults.random.random())
                    nobody: asyncio.Future[Any] = loop.create_future()
                    loop.outside(late, self._arrive, nobody, what, run, 0.0, False)
                loop.outside(_SOCKET_TIMEOUT, _fail, future, RedisTimeoutError("no answer"))
        return await future

    def _arrive(
        self,
        future: asyncio.Future[Any],
        what: str,
        run: Callable[[], Any],
        block: float,
        reply_lost: bool,
    ) -> None:
        world, server = self._world, self._server
        if server.away is not None or world.over:
            _fail(future, RedisConnectionError("the server went away"))
            return
        try:
            result = run()
        except Exception as error:  # noqa: BLE001
            _fail(future, error)
            return
        if what in _APPENDING:
            server.wake()
        if what != "xread" and world.faults.at_steps:
            world.strike(self._process, f"{what}, done")
        if reply_lost:
            loop_error = RedisConnectionError("the connection broke")
            world.loop.outside(world.latency(), _fail, future, loop_error)
        elif block and not result:
            server.block(future, run, block)
        elif world.faults.random.random() < 0.5:
            world.loop.outside(world.latency(), _answer, future, result)
        else:
            _answer(future, result)


class _Script:
    """A script, as redis-py registers it."""

    def __init__(
        self, server: RedisServer, call: Callable[..., Awaitable[Any]], script: str
    ) -> None:
        self.script = script
        self._server = server
        self._call = call

    @property
    def sha(self) -> str:
        return _sha(self.script)

    async def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        is_lane, name = _NAMES[self.script]
        return await self._call(name, partial(self._server.run_script, is_lane, name, keys, args))


class _Pipeline:
    """Commands that go together."""

    def __init__(self, server: RedisServer, call: Callable[..., Awaitable[Any]]) -> None:
        self._server = server
        self._model = server.model
        self._call = call
        self._commands: list[Callable[[], Any]] = []
        #: The scripts that it loads; none was loaded before.
        self._loaded: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    def xadd(self, key: Any, fields: Mapping[Any, Any], **options: Any) -> None:
        self._commands.append(partial(self._model.xadd, key, fields, **options))

    def expire(self, key: Any, seconds: int) -> None:
        self._commands.append(partial(self._model.expire, key, seconds))

    def exists(self, key: str) -> None:
        self._commands.append(partial(self._server.model.exists, key))

    def script_load(self, script: str) -> None:
        self._loaded[_sha(script)] = script
        self._commands.append(partial(_sha, script))

    def evalsha(self, sha: str, count: int, *keys_and_args: Any) -> None:
        is_lane, name = _NAMES[self._loaded[sha]]
        keys, args = keys_and_args[:count], keys_and_args[count:]
        self._commands.append(partial(self._server.run_script, is_lane, name, keys, args))

    async def execute(self, raise_on_error: bool = True) -> Any:
        return await self._call("pipeline", lambda: [command() for command in self._commands])


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # The process that asked may be dead: its exception is never retrieved.
        future.exception()
