"""``calls/peers.py``: processes on one prefix that disagree are noticed by both."""

from __future__ import annotations

import itertools
import threading

import msgspec
import pytest
import redis
from celery import Celery

from celery_stargate.calls import peers as peers_module
from celery_stargate.calls.peers import Peers, PeersThread, caller_of, peer_of
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.registry import CallerRegistry, RegistryKeys
from celery_stargate.model.settings import Settings
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
    first = Peers(CallerRegistry(connections, prefix), prefix, "first", shop)
    second = Peers(CallerRegistry(connections, prefix), prefix, "second", shop)
    bank = peer_of(app("bank", "bank.paid"))
    other = Peers(CallerRegistry(connections, prefix), prefix, "other", bank)
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
        Peers(CallerRegistry(connections, prefix), prefix, "first", peer_of(app("shop"))).look()
        assert client.hkeys(key) == [b"first"]
    assert warnings(caplog) == []
    connections.close()


def test_redis_that_is_away_stops_nothing(
    refusing_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked again later, in the thread of a worker and by a caller."""
    monkeypatch.setattr(peers_module, "_EVERY", 0.001)
    registry = CallerRegistry(Connections(f"redis://127.0.0.1:{refusing_port}/0"), "p")
    peers = Peers(registry, "p", "w", peer_of(app("a")))
    thread = PeersThread(peers)
    looks, look, looked = itertools.count(1), peers.look, threading.Event()

    def count() -> None:
        if next(looks) == 3:
            looked.set()
        look()

    monkeypatch.setattr(peers, "look", count)
    thread.start()
    assert looked.wait(20)
    thread.stop()
    peers.look_now_and_then()


def test_a_worker_and_a_caller_that_disagree(
    redis_server: ServerAddress, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are told which topic it is, what each has, and what to do; once."""
    connections = Connections(redis_server.url)
    registry = CallerRegistry(connections, prefix)
    topic = "persistent://public/default/orders"

    def settings(**given: object) -> Settings:
        conf = {"stargate_topic": topic, "stargate_prefix": prefix}
        return Settings.read(conf | {f"stargate_{name}": each for name, each in given.items()})

    shop = app("shop", "shop.paid")
    worker = Peers(registry, prefix, "w@h", peer_of(shop, settings(lanes=2)))
    alike = Peers(registry, prefix, *caller_of(app("shop"), settings(lanes=2)))
    caller = Peers(
        registry, prefix, *caller_of(shop, settings(lanes=4, delivery="effectively_once"))
    )
    for each in (worker, alike, worker, alike):
        each.look()
    assert warnings(caplog) == []
    for each in (caller, worker, caller, worker):
        each.look()
    found = warnings(caplog)
    assert len(found) == 4
    assert all(topic in text for text in found)
    assert any("it has 2 lanes, and this process has 4" in text for text in found)
    assert any("it has 4 lanes, and this process has 2" in text for text in found)
    assert any("its delivery is effectively_once" in text for text in found)
    assert any("its delivery is at_least_once" in text for text in found)
    connections.close()


def test_processes_with_another_pulsar(
    redis_server: ServerAddress, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are told where messages go, without what may be a secret; one of before says nothing."""
    connections = Connections(redis_server.url)
    registry = CallerRegistry(connections, prefix)

    def settings(url: str | None) -> Settings:
        given = {} if url is None else {"stargate_url": url}
        return Settings.read({"stargate_topic": "orders", "stargate_prefix": prefix, **given})

    worker = Peers(registry, prefix, "w@h", peer_of(app("shop"), settings("ws://pulsar-a:8080")))
    alike = Peers(registry, prefix, *caller_of(app("shop"), settings("ws://PULSAR-A:8080/")))
    silent = Peers(registry, prefix, *caller_of(app("shop"), settings(None)))
    other = Peers(registry, prefix, *caller_of(app("shop"), settings("wss://pulsar-b:8443")))
    for each in (worker, alike, silent, worker):
        each.look()
    assert warnings(caplog) == []
    for each in (other, worker, other, worker):
        each.look()
    by_other, by_worker = warnings(caplog)
    assert "('shop') publishes to Pulsar at pulsar-a:8080" in by_other
    assert "this process to pulsar-b:8443" in by_other
    assert "publishes to Pulsar at pulsar-b:8443" in by_worker
    assert f"own stargate_prefix; it is {prefix!r} in both" in by_worker
    connections.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("wss://gateway:443/staging", "gateway:443/staging"),
        ("wss://GATEWAY/staging/", "gateway:443/staging"),
        ("wss://gateway/Staging", "gateway:443/Staging"),
        ("ws://gateway", "gateway:80"),
        ("ws://gateway:", "gateway:80"),
        ("ws://[::1]", "[::1]:80"),
        ("ws://[::1]:8080", "[::1]:8080"),
        ("memory://", ""),
        (None, ""),
    ],
)
def test_which_pulsar_it_is(url: str | None, told: str) -> None:
    """Behind a proxy its path tells, too; a port that is the scheme's own need not be named."""
    settings = Settings.read({} if url is None else {"stargate_url": url})
    assert peer_of(app("shop"), settings).pulsar == told
    assert caller_of(app("shop"), settings)[1].pulsar == told


def test_a_process_that_writes_newer_records(
    redis_server: ServerAddress, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As during a deployment."""
    connections = Connections(redis_server.url)
    registry = CallerRegistry(connections, prefix)
    ours = peer_of(app("shop"))
    newer = msgspec.structs.replace(ours, records=3)
    for each in (Peers(registry, prefix, "a", ours), Peers(registry, prefix, "b", newer)):
        each.look()
    [warned] = warnings(caplog)
    assert "worker a ('shop') writes records of version 2, and this process of version 3" in warned
    connections.close()


def test_processes_that_know_other_partitions(
    redis_server: ServerAddress, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Their lanes are not the same either; a topic that only one of them has is no matter."""
    connections = Connections(redis_server.url)
    registry = CallerRegistry(connections, prefix)

    def peer(name: str, partitions: int, own: str) -> Peers:
        orders = {"topic": "orders", "delivery": "effectively_once", "partitions": partitions}
        conf = {"stargate_topics": {"orders": orders, own: own}, "stargate_prefix": prefix}
        settings = Settings.read(conf)
        return Peers(registry, prefix, name, peer_of(app("shop"), settings))

    for each in (peer("a@h", 4, "bills"), peer("b@h", 8, "stock")):
        each.look()
    [warned] = [text for text in warnings(caplog) if "partitions are" in text]
    assert "its partitions are 4, and 8 here" in warned
    connections.close()
