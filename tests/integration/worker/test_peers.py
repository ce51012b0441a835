"""``worker/peers.py``: two systems on one prefix are noticed by both."""

from __future__ import annotations

import pytest
import redis
from celery import Celery

from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.worker.peers import Peers, peer_of
from tests.servers.fixtures import ServerAddress


def app(name: str, *tasks: str) -> Celery:
    """Return an app with tasks of these names."""
    made = Celery(name, set_as_current=False)
    for task in tasks:
        made.task(name=task, shared=False)(_nothing)
    return made


def _nothing() -> None:
    """Stand where a task's body does."""


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was warned of since the last call."""
    found = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    caplog.clear()
    return found


def test_two_systems_on_one_prefix_are_noticed_by_both(
    redis_server: ServerAddress, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each once; two workers of one system are not."""
    connections = Connections(redis_server.url)
    shop = peer_of(app("shop", "shop.paid"))
    first = Peers(connections, prefix, "first", shop)
    second = Peers(connections, prefix, "second", shop)
    other = Peers(connections, prefix, "other", peer_of(app("bank", "bank.paid")))
    for each in (first, second, first):
        each.look()
    assert warnings(caplog) == []
    other.look()
    [warned] = warnings(caplog)
    assert "'shop'" in warned
    assert "stargate_prefix" in warned
    for _ in range(2):
        first.look()
    [warned] = warnings(caplog)
    assert "worker other of the app 'bank'" in warned
    connections.close()


def test_a_worker_that_is_gone_is_forgotten(
    redis_server: ServerAddress, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And so is what nobody can read."""
    connections = Connections(redis_server.url)
    key = RegistryKeys(prefix).key("apps")
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(key, "gone", b'{"app": "bank", "tasks": "x", "until": 1}')
        client.hset(key, "junk", b"\xff")
        Peers(connections, prefix, "first", peer_of(app("shop"))).look()
        assert client.hkeys(key) == [b"first"]
    assert warnings(caplog) == []
    connections.close()


def test_redis_that_is_away_stops_nothing(refusing_port: int) -> None:
    """It is looked again later."""
    peers = Peers(Connections(f"redis://127.0.0.1:{refusing_port}/0"), "p", "w", peer_of(app("a")))
    peers.start()
    peers.stop()
