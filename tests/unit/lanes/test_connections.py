"""Which Redis holds the lanes, and what its answers look like."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio
from celery import Celery

from celery_stargate import ConfigurationError
from celery_stargate.errors import StoreUnavailable
from celery_stargate.lanes.connections import (
    Connections,
    find_redis_url,
    store_errors,
    stream_entries,
)


def app(broker: str | None = None, backend: str | None = None) -> Celery:
    """Return an app that connects to nothing."""
    return Celery("shop", broker=broker, backend=backend, set_as_current=False)


@pytest.mark.parametrize(
    ("setting", "broker", "backend", "found"),
    [
        ("redis://own/1", "redis://broker", "redis://backend", "redis://own/1"),
        (None, "redis://broker", "redis://backend", "redis://backend"),
        (None, "rediss://broker", None, "rediss://broker"),
        (None, "redis://broker", "rpc://", "redis://broker"),
        (None, "amqp://broker", "redis+socket:///run/redis.sock", "unix:///run/redis.sock"),
        (
            None,
            "amqp://broker",
            "rediss://host?ssl_cert_reqs=CERT_REQUIRED",
            "rediss://host?ssl_cert_reqs=required",
        ),
    ],
)
def test_the_setting_comes_first_then_the_backend_then_the_broker(
    setting: str | None, broker: str, backend: str | None, found: str
) -> None:
    """Whichever of them is a Redis."""
    assert find_redis_url(setting, app(broker, backend)) == found


@pytest.mark.parametrize("backend", [None, "rpc://", "db+sqlite://"])
def test_no_redis_at_all(backend: str | None) -> None:
    """Says which setting to use."""
    with pytest.raises(ConfigurationError, match="set stargate_redis_url"):
        find_redis_url(None, app("amqp://broker", backend))


@pytest.mark.parametrize("setting", ["http://host", "amqp://user:hunter2@host", "redis://[x"])
def test_a_setting_that_is_no_redis(setting: str) -> None:
    """Is refused, though the backend would do; a password in it is not shown."""
    with pytest.raises(ConfigurationError, match="^stargate_redis_url must be") as caught:
        find_redis_url(setting, app("redis://broker", "redis://backend"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("backend", "url", "same"),
    [
        ("redis://", "redis://localhost:6379/0", True),
        ("redis://host/1", "redis://host:6379/1", True),
        ("redis://host/1", "redis://host/2", False),
        ("redis://host/1", "redis://other/1", False),
        ("redis://host:1/1", "redis://host:2/1", False),
        ("redis://host", "rediss://host", False),
        ("redis+socket:///run/redis.sock", "unix:///run/redis.sock", True),
        # Another user may have other rights there.
        ("redis://:a@host", "redis://:b@host", False),
        ("rpc://", "redis://", False),
        ("redis://host:x", "redis://host", False),
        (None, "redis://", True),
        (object(), "redis://", False),
    ],
)
def test_whether_results_are_stored_beside_the_lanes(backend: object, url: str, same: bool) -> None:
    """In the same database, by the same user; or not at all."""
    assert Connections(url).holds_results(backend) is same


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
        (redis.exceptions.ReadOnlyError("a replica"), "Redis does not answer: a replica"),
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
