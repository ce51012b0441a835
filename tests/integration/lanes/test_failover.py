"""A master that is replaced: callers and owners leave it, whoever tells them that it is."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from celery_stargate import StoreUnavailable
from celery_stargate.lanes.connections import UNAVAILABLE, Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.support.bound import bounded
from tests.integration.lanes.rig import put
from tests.integration.rig import Proxy, elapsed, wait_for
from tests.servers import redis as redis_module
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer


class Pair:
    """A master and its replica behind one address, as a virtual IP or a DNS name has it."""

    def __init__(self, master: RedisServer, replica: RedisServer, address: Proxy) -> None:
        self.master = master
        self.replica = replica
        self._address = address
        self.url = f"redis://127.0.0.1:{address.port}/0"

    def fail_over(self) -> None:
        """Make the replica the master. New connections reach it; old ones stay where they are."""
        self._address.lead_to(self.replica.port)
        with (
            redis.Redis(port=self.master.port) as old,
            redis.Redis(port=self.replica.port) as new,
        ):
            wait_for(lambda: _offset(new, "slave") >= _offset(old, "master"))
            new.replicaof("NO", "ONE")
            old.replicaof("127.0.0.1", str(self.replica.port))


def _offset(client: redis.Redis, role: str) -> int:
    return int(client.info("replication")[f"{role}_repl_offset"])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """The two, in step."""
    require(redis_module.missing_reason())
    with RedisServer(tmp_path / "a") as master, RedisServer(tmp_path / "b") as replica:
        with redis.Redis(port=replica.port) as client:
            client.replicaof("127.0.0.1", str(master.port))
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        with Proxy(master.port) as address:
            yield Pair(master, replica, address)


def test_callers_leave_a_demoted_master(pair: Pair, prefix: str, lane: Lane) -> None:
    """Its connections stay open, and it says READONLY: the call goes on at the new one."""
    lanes = Outbox(Connections(pair.url), prefix)
    put(lanes, lane, "before")
    pair.fail_over()
    with elapsed() as seconds:
        put(lanes, lane, "after")
        lanes.put_many([(lane, Record("many"), b'{"context":"many"}')], timeout=60)
    assert seconds() < 4
    assert lanes.backlog(lane) == 3
    lanes.close()


def test_owners_leave_a_demoted_master(pair: Pair, prefix: str) -> None:
    """Single commands, pipelines, and a read that blocked when it was demoted."""

    async def work() -> Any:
        connections = Connections(pair.url)
        client, blocking = connections.asyncio(), connections.blocking()
        await client.set(f"{prefix}:a", 1)
        await blocking.ping()
        read = asyncio.ensure_future(blocking.xread({f"{prefix}:log": "0-0"}, block=3000))
        with redis.Redis(port=pair.master.port) as plain:
            await asyncio.to_thread(wait_for, lambda: plain.info("clients")["blocked_clients"])
        await asyncio.to_thread(pair.fail_over)
        await client.set(f"{prefix}:b", 2)
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.set(f"{prefix}:c", 3)
            pipeline.xadd(f"{prefix}:log", {"l": "x"})
            await pipeline.execute()
        found = await read
        await client.aclose()
        await blocking.aclose()
        return found

    with elapsed() as seconds:
        found = asyncio.run(work())
    assert seconds() < 5
    assert [key for key, _ in found] == [f"{prefix}:log".encode()]
    with redis.Redis(port=pair.replica.port) as plain:
        assert plain.mget([f"{prefix}:{each}" for each in "abc"]) == [b"1", b"2", b"3"]


def test_a_pipeline_that_is_read_only_as_a_whole(pair: Pair, prefix: str) -> None:
    """Its answers are errors, which redis-py does not raise where it is told not to."""

    async def work() -> list[Any]:
        client = Connections(pair.url).asyncio()
        await client.ping()
        await asyncio.to_thread(pair.fail_over)
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.set(f"{prefix}:a", 1)
            pipeline.get(f"{prefix}:a")
            found = await pipeline.execute(raise_on_error=False)
        await client.aclose()
        return found

    assert asyncio.run(work()) == [True, b"1"]


def test_without_a_new_master_the_call_ends_with_the_reason(
    pair: Pair, prefix: str, lane: Lane
) -> None:
    """In bounded time, for callers and owners."""
    lanes = Outbox(Connections(pair.url), prefix)
    put(lanes, lane, "before")
    with redis.Redis(port=pair.master.port) as client:
        client.replicaof("127.0.0.1", str(pair.replica.port))
    with (
        elapsed() as seconds,
        pytest.raises(StoreUnavailable, match="Redis is a replica.*READONLY.*name the master"),
        # Long enough for a busy machine to answer.
        bounded(2.0),
    ):
        put(lanes, lane, "nowhere")
    assert seconds() < 8

    async def own() -> None:
        client = Connections(pair.url).asyncio()
        try:
            await client.set(f"{prefix}:a", 1)
        finally:
            await client.aclose()

    with elapsed() as seconds, pytest.raises(UNAVAILABLE, match="READONLY"):
        asyncio.run(own())
    assert seconds() < 9
    lanes.close()


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"min-replicas-to-write": "1"}, "NOREPLICAS"),
        ({"replica-serve-stale-data": "no"}, "MASTERDOWN"),
        ({"save": "3600 1000000"}, "MISCONF"),
    ],
)
def test_a_server_that_cannot_serve_now_is_unavailable(
    tmp_path: Path, prefix: str, lane: Lane, config: dict[str, str], word: str
) -> None:
    """It may pass: an owner waits and does not fail."""
    require(redis_module.missing_reason())
    with RedisServer(tmp_path / "redis", config=config) as server:
        if word == "MASTERDOWN":
            with redis.Redis(port=server.port) as client:
                client.replicaof("127.0.0.1", "1")
        elif word == "MISCONF":
            _fail_to_save(server)
        lanes = Outbox(Connections(server.url), prefix)
        with elapsed() as seconds, pytest.raises(StoreUnavailable, match=word), bounded(2.0):
            put(lanes, lane, "x")
        assert seconds() < 8
        with pytest.raises(UNAVAILABLE), bounded(0.5):
            Connections(server.url).sync().set(f"{prefix}:a", 1)
        # Asked to end, a Redis that cannot save stays.
        server.kill()


def _fail_to_save(server: RedisServer) -> None:
    """Take away the folder of a Redis, as a full disk would, and let it find out."""
    shutil.rmtree(server.data_dir)
    with redis.Redis(port=server.port, decode_responses=True) as client:
        client.bgsave()
        wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
