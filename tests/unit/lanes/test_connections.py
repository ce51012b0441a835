"""The clients of the lanes' Redis, and what its answers look like."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio

from celery_stargate.errors import StoreUnavailable
from celery_stargate.lanes import async_client
from celery_stargate.lanes.connections import Connections, store_errors, stream_entries


@pytest.mark.parametrize("url", ["redis://host", "rediss://host", "unix:///run/redis.sock"])
def test_what_is_packed_by_hiredis(url: str) -> None:
    """Is what redis-py would pack by itself, over each kind of connection."""
    pools: list[Any] = [
        each.connection_pool
        for each in (Connections(url).asyncio(), redis.asyncio.Redis.from_url(url))
    ]
    ours, plain = (each.make_connection() for each in pools)
    assert isinstance(ours, type(plain))
    command = ("SCRIPT LOAD", "grüße", b"\x00\xff", 17, -1, "", "x" * 10_000)
    assert b"".join(ours.pack_command(*command)) == b"".join(plain.pack_command(*command))
    assert ours.pack_command("SCRIPT LOAD", "x") == [
        b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$1\r\nx\r\n"
    ]
    with pytest.raises(redis.exceptions.DataError):
        ours.pack_command("SET", "key", None)


def test_only_a_fast_packer_takes_the_place_of_redis_pys() -> None:
    """The class is made once for each kind, whatever the number of clients."""
    kinds = {
        Connections("redis://host").asyncio().connection_pool.connection_class for _ in range(3)
    }
    assert len(kinds) == 1
    assert kinds != {redis.asyncio.Connection}


def test_streams_of_both_protocols() -> None:
    """RESP2 gives pairs, RESP3 a mapping with one more list."""
    entries = [(b"1-0", {b"l": b"a"})]
    assert [tuple(each) for each in stream_entries([[b"log", entries]])] == [(b"log", entries)]
    assert stream_entries({b"log": [entries]}) == [(b"log", entries)]
    assert stream_entries(None) == []
    assert stream_entries({}) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.exceptions.ConnectionError("refused"), "Redis does not answer: refused"),
        (
            redis.exceptions.ReadOnlyError("READONLY"),
            (
                "Redis is a replica, or was made one: READONLY; name the master, or the sentinels, "
                "in stargate_redis_url"
            ),
        ),
        (
            # A call that was tried until its bound ends so.
            redis.exceptions.ConnectionError("READONLY You can't write"),
            (
                "Redis is a replica, or was made one: READONLY You can't write; name the master, "
                "or the sentinels, in stargate_redis_url"
            ),
        ),
        (
            redis.exceptions.ConnectionError("NOREPLICAS Not enough good replicas to write."),
            (
                "Redis has fewer replicas in step than its min-replicas-to-write: NOREPLICAS Not "
                "enough good replicas to write; bring its replicas back"
            ),
        ),
        (
            redis.exceptions.ConnectionError(
                "Error 2 connecting to h:1. No such file or directory."
            ),
            (
                "a file that leads to Redis is missing: Error 2 connecting to h:1. No such file or "
                "directory; check the socket's path, or the files of ssl_… in stargate_redis_url "
                "and its options"
            ),
        ),
        (
            redis.exceptions.AuthenticationError("WRONGPASS"),
            (
                "Redis refuses the user or the password: WRONGPASS; check those in the URL of the "
                "lanes' Redis, or in stargate_redis_options"
            ),
        ),
        (
            redis.exceptions.NoPermissionError("NOPERM eval"),
            (
                "Redis does not allow its user a command: NOPERM eval; give it what docs/redis.md "
                "lists"
            ),
        ),
        (OSError("no route"), "Redis does not answer: no route"),
        (redis.exceptions.ResponseError("WRONGTYPE"), "Redis refused the call: WRONGTYPE"),
    ],
)
def test_errors_of_redis_are_store_errors(error: Exception, words: str) -> None:
    """Whether it was unavailable or refused the call; the cause is kept."""
    with pytest.raises(StoreUnavailable) as caught, store_errors():
        raise error
    assert str(caught.value) == words
    assert caught.value.__cause__ is error


def test_other_errors_stay_what_they_are() -> None:
    """A mistake of ours is not an outage."""
    with pytest.raises(TypeError), store_errors():
        raise TypeError("a mistake")


def test_clients() -> None:
    """Callers share one; each event loop, and its blocking read, gets a client of its own."""
    connections = Connections("redis://host")
    assert connections.sync() is connections.sync()
    clients = [connections.asyncio(), connections.asyncio(), connections.blocking()]
    assert len({id(each.connection_pool) for each in clients}) == 3
    connections.close()


@pytest.mark.parametrize(("given", "found"), [(0.3, 2.5), (7, 7)])
def test_a_blocking_read_has_its_time(given: float, found: float) -> None:
    """It takes up to 2 s: with a shorter `socket_timeout` each would count as an outage."""
    one = Connections(f"redis://host?socket_timeout={given}").sync()
    assert one.connection_pool.connection_kwargs["socket_timeout"] == found
    cluster: Any = Connections(f"rediscluster://host?socket_timeout={given}").asyncio()
    assert cluster._make().connection_kwargs["socket_timeout"] == found


def test_without_hiredis_commands_are_packed_by_redis_py(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no requirement."""

    class Connection(redis.asyncio.Connection):
        pass

    monkeypatch.setattr(async_client, "COMMAND_PACKER", None)
    assert async_client.packing(Connection) is Connection
