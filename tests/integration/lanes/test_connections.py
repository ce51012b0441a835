"""``lanes/connections.py``: clients of Redis whose every call ends."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
import redis

from celery_stargate.lanes import async_client
from celery_stargate.lanes.connections import UNAVAILABLE, Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from tests.integration.lanes.rig import put
from tests.integration.rig import Proxy, elapsed
from tests.servers import redis as redis_module
from tests.servers.fixtures import ServerAddress, require
from tests.servers.redis import RedisServer


def test_a_client_is_shared_among_threads(redis_server: ServerAddress, prefix: str) -> None:
    """Answers are not mixed."""
    client = Connections(redis_server.url).sync()
    wrong: list[object] = []

    def work(name: str) -> None:
        for number in range(100):
            client.set(f"{prefix}:{name}", number)
            if client.get(f"{prefix}:{name}") != str(number).encode():
                wrong.append((name, number))

    threads = [threading.Thread(target=work, args=(str(each),)) for each in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    client.close()
    assert wrong == []


def test_a_cut_connection_is_made_anew_unseen(redis_server: ServerAddress, prefix: str) -> None:
    """A restarted proxy or load balancer between is no reason for an error."""
    port = redis.Redis.from_url(redis_server.url).connection_pool.connection_kwargs["port"]
    with Proxy(port) as proxy:
        client = Connections(f"redis://127.0.0.1:{proxy.port}/0").sync()
        client.set(f"{prefix}:a", 1)
        proxy.cut()
        assert client.get(f"{prefix}:a") == b"1"
        client.close()


def test_the_loops_client_raises_what_is_known_as_unavailable(
    prefix: str, refusing_port: int
) -> None:
    """So that an owner waits and tries again, and does not fail."""

    async def ask() -> None:
        client = Connections(f"redis://127.0.0.1:{refusing_port}/0").asyncio()
        try:
            await client.get(prefix)
        finally:
            await client.aclose()

    with elapsed() as seconds, pytest.raises(UNAVAILABLE):
        asyncio.run(ask())
    assert seconds() < 5


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_call_of_the_loops_client_ends_though_redis_is_silent(
    redis_server: ServerAddress, prefix: str, monkeypatch: pytest.MonkeyPatch, pipelined: bool
) -> None:
    """It is unavailable then; and the answer, should it come late, is nobody else's."""
    monkeypatch.setattr(async_client, "CALL_TIMEOUT", 0.2)

    async def ask() -> object:
        client = Connections(redis_server.url).asyncio()
        try:
            await client.set(f"{prefix}:a", 1)
            with pytest.raises(UNAVAILABLE, match=r"no answer within 0\.2 s"):
                if pipelined:
                    pipeline = client.pipeline(transaction=False)
                    pipeline.blpop([f"{prefix}:b"], 0)
                    await pipeline.execute()
                else:
                    await client.blpop([f"{prefix}:b"], 0)
            await client.rpush(f"{prefix}:b", "late")
            return await client.get(f"{prefix}:a")
        finally:
            await client.aclose()

    with elapsed() as seconds:
        assert asyncio.run(ask()) == b"1"
    assert seconds() < 5


def test_a_redis_that_loads_its_file_is_unavailable_and_no_error(
    tmp_path: Path, prefix: str, lane: Lane
) -> None:
    """After a restart Redis answers -LOADING for a while: callers and owners wait."""
    require(redis_module.missing_reason())
    # Under everysec Redis puts off a write while it syncs: a kill could lose what it answered.
    config = {"appendfsync": "always"}
    with RedisServer(tmp_path / "redis", appendonly=True, config=config) as server:
        put(Outbox(Connections(server.url), prefix), lane, "a")
        server.kill()
        server.start()
        assert Outbox(Connections(server.url), prefix).backlog(lane) == 1


def test_a_forked_child_has_a_connection_of_its_own(
    redis_server: ServerAddress, prefix: str, lane: Lane, lanes: Outbox
) -> None:
    """A socket shared with the parent would mix their answers."""
    put(lanes, lane, "parent")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # No test machinery may run in the child, whatever happens.
        try:
            put(lanes, lane, "child")
            os.write(writing, b"ok")
        except BaseException as error:  # noqa: BLE001  # told to the parent
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    for number in range(20):
        put(lanes, lane, f"parent {number}")
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"ok"
    os.waitpid(child, 0)
    assert lanes.backlog(lane) == 22
