"""The clients of each form of Redis: pipelines, scans, and connections that run out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import SoftTimeLimitExceeded
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ResponseError

from celery_stargate.lanes import sync_client
from celery_stargate.lanes.connections import UNAVAILABLE, Connections
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.support.bound import bounded
from tests.servers import redis as redis_module
from tests.servers.fixtures import ServerAddress, require
from tests.servers.redis import RedisServer
from tests.topology import Topology


def test_a_scan_finds_all_keys(lanes: Outbox, topology: Topology, prefix: str) -> None:
    """In steps, and of each master of a Cluster."""
    client: Any = Connections(topology.target).sync()
    keys = {f"{prefix}:{number}".encode() for number in range(300)}
    for key in keys:
        client.set(key, 1)
    assert set(client.scan_iter(f"{prefix}:*", count=20)) == keys
    client.close()


def test_an_error_in_a_pipeline(lanes: Outbox, topology: Topology, prefix: str) -> None:
    """Is raised, or returned among the replies, from a thread and from an event loop."""
    connections = Connections(topology.target)
    key, number = f"{prefix}:text", f"{prefix}:number"
    connections.sync().set(key, "x")

    def fill(pipeline: Any) -> None:
        pipeline.incr(key)
        pipeline.incr(number)

    async def ask() -> list[Any]:
        client = connections.asyncio()
        try:
            async with client.pipeline(transaction=False) as pipeline:
                fill(pipeline)
                replies = await pipeline.execute(raise_on_error=False)
                fill(pipeline)
                with pytest.raises(ResponseError, match="not an integer"):
                    await pipeline.execute()
            return list(replies)
        finally:
            await client.aclose()

    with connections.sync().pipeline(transaction=False) as pipeline:
        fill(pipeline)
        found = [pipeline.execute(raise_on_error=False)]
        fill(pipeline)
        with pytest.raises(ResponseError, match="not an integer"):
            pipeline.execute()
    found.append(asyncio.run(ask()))
    for error, count in found:
        assert isinstance(error, ResponseError)
        assert count in {1, 2, 3}
    connections.close()


def test_a_loops_client_that_was_never_used(lanes: Outbox, topology: Topology) -> None:
    """Is closed without a connection, and once more."""

    async def close() -> None:
        client = Connections(topology.target).asyncio()
        await client.aclose()
        assert await client.exists("nothing") == 0
        await client.aclose()

    asyncio.run(close())


def test_all_connections_are_in_use(redis_server: ServerAddress) -> None:
    """The error names the setting; when one is free again, calls go on."""
    connections = Connections(redis_server.url, max_connections=1)
    client = connections.sync()
    held = client.connection_pool.get_connection()
    with bounded(0.2), pytest.raises(LostConnection, match="stargate_redis_max_connections"):
        client.ping()
    client.connection_pool.release(held)
    assert client.ping() is True
    connections.close()


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_call_that_is_interrupted_leaves_its_reply_to_no_other(
    redis_server: ServerAddress, prefix: str, monkeypatch: pytest.MonkeyPatch, pipelined: bool
) -> None:
    """A signal handler may raise when a command is sent, and its reply has not come."""
    client: Any = Connections(redis_server.url).sync()

    def interrupt(*_: Any, **__: Any) -> None:
        raise SoftTimeLimitExceeded

    def wait() -> None:
        # Its reply comes after the next command was sent.
        if pipelined:
            with client.pipeline(transaction=False) as pipeline:
                pipeline.blpop([f"{prefix}:nothing"], 0.2)
                pipeline.execute()
        else:
            client.blpop([f"{prefix}:nothing"], 0.2)

    client.ping()
    with monkeypatch.context() as patch:
        patch.setattr(sync_client.BoundedConnection, "read_response", interrupt)
        with pytest.raises(SoftTimeLimitExceeded):
            wait()
    assert client.echo("mine") == b"mine"
    client.close()


def test_a_call_while_an_error_is_handled_keeps_its_connection(redis_server: ServerAddress) -> None:
    """The error was there before it."""
    client: Any = Connections(redis_server.url).sync()
    number = client.client_id()
    try:
        raise ValueError("of the program")
    except ValueError:
        assert client.client_id() == number
        with pytest.raises(ResponseError):
            client.execute_command("NO-SUCH-COMMAND")
        assert client.client_id() == number
    client.close()


def test_a_call_without_time(redis_server: ServerAddress) -> None:
    """Asks Redis for nothing."""
    connections = Connections(redis_server.url)
    with bounded(0.0), pytest.raises(UNAVAILABLE, match="did not answer in time"):
        connections.sync().ping()
    connections.close()


def test_a_server_that_became_a_replica(tmp_path: Path, refusing_port: int) -> None:
    """Takes no pipeline; the call ends in time and says why, and later ones succeed again."""
    require(redis_module.missing_reason())
    with RedisServer(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as plain:
        connections = Connections(server.url)

        plain.execute_command("REPLICAOF", "127.0.0.1", refusing_port)
        with connections.sync().pipeline(transaction=False) as pipeline:
            pipeline.set("key", 1)
            with bounded(2.0), pytest.raises(LostConnection, match="READONLY"):
                pipeline.execute()
        plain.execute_command("REPLICAOF", "NO", "ONE")
        with connections.sync().pipeline(transaction=False) as pipeline:
            pipeline.set("key", 1)
            assert pipeline.execute() == [True]
        connections.close()
