"""``fixtures.py`` in this process: a worker in a thread, and what it leaves behind."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, _state

from celery_stargate import ProduceError, ProduceTask, Stargate
from celery_stargate.testing import LocalPulsar, fixtures
from celery_stargate.testing.local_redis import LocalRedis
from celery_stargate.testing.remote import RemotePulsar
from tests.plugin_project import apps_restored
from tests.servers.fixtures import ServerAddress
from tests.threads import still_alive


@pytest.fixture
def app() -> Iterator[Celery]:
    """A user's app, of which no server is there."""
    with apps_restored():
        made = Celery("shop", broker="redis://nowhere:1", backend="redis://nowhere:1")
        made.conf.stargate_url = "ws://nowhere:1"
        made.conf.stargate_topics = {"orders": "persistent://public/default/shop-orders"}
        Stargate(made)
        yield made


def test_a_worker(app: Celery, redis_server: ServerAddress) -> None:
    """It publishes; afterwards its threads have ended, and the app has its own settings."""
    before = threading.enumerate()
    handlers = [*logging.getLogger().handlers]
    state: Any = _state
    for _ in range(2):
        with (
            fixtures.pulsar("") as pulsar,
            fixtures.served(app, pulsar, redis_server.url, {}),
            fixtures.worker(app, {}),
        ):
            assert isinstance(pulsar, LocalPulsar)
            produce: Any = app.tasks[ProduceTask.default_name]
            receipt = produce.delay("lamp", topic="orders").get(timeout=20)
            assert receipt["topic"] == "persistent://public/default/shop-orders"
            pulsar.assert_produced("orders", payload="lamp", count=1)
            assert logging.getLogger().handlers == handlers
        assert app.conf.broker_url == "redis://nowhere:1"
        assert state.default_app is app
    assert not still_alive(before, "targate", "Pulsar")


def test_eager_on_a_pulsar(app: Celery) -> None:
    """By its URL, with the app's names for topics."""
    with fixtures.eager(app, "local", {"stargate_topic": "orders"}) as pulsar:
        Stargate.of(app).produce("lamp")
        pulsar.assert_produced("orders", payload="lamp", count=1)


def test_eager_in_memory(app: Celery) -> None:
    """Without a URL; a status that Pulsar would refuse the producer with fails the message."""
    with fixtures.eager(app, "", {"stargate_topic": "orders"}) as memory:
        Stargate.of(app).produce("lamp")
        memory.assert_produced("orders", payload="lamp", count=1)
        memory.receipts.fail_next(404)
        with pytest.raises(ProduceError) as caught:
            Stargate.of(app).produce("chair")
        assert caught.value.failure["code"] == "http-404"
        memory.assert_produced("orders", count=1)


def test_which_pulsar() -> None:
    """One of its own, or the one of a URL."""
    for url in ("", "local", "memory://"):
        with fixtures.pulsar(url) as local:
            assert isinstance(local, LocalPulsar)
            assert local.running
        assert not local.running
    with fixtures.pulsar("ws://pulsar:8080") as remote:
        assert isinstance(remote, RemotePulsar)
        assert remote.url == "ws://pulsar:8080"


def test_which_app(app: Celery) -> None:
    """By name; else Celery's current one, if it has a Stargate; else a new one."""
    with pytest.raises(pytest.UsageError, match="no_such_module"):
        fixtures.base_app("no_such_module")
    assert fixtures.base_app("") is app
    with apps_restored():
        Celery("another")
        made = fixtures.base_app("")
        assert made.main == "stargate_tests"
        assert Stargate.of(made)


def test_which_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """The given one, or one that is started; without any the test is skipped."""
    with fixtures.redis_server("redis://given") as url:
        assert url == "redis://given"
    with fixtures.redis_server("") as url:
        fixtures.flush(url)
    monkeypatch.setattr(LocalRedis, "missing_reason", staticmethod(lambda: "there is none"))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is none"):
        fixtures.redis_server("").__enter__()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="there is none"):
        fixtures.redis_server("").__enter__()
