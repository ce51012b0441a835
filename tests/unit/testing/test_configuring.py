"""``configuring.py``: other settings for a while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from celery_stargate import ConfigurationError, ProduceError, Stargate
from celery_stargate.testing import configured, in_memory
from tests.plugin_project import apps_restored


@pytest.fixture(params=[None, "CELERY"])
def app(request: pytest.FixtureRequest) -> Iterator[Celery]:
    """An app whose settings are in a class, with Django's names or without."""
    with apps_restored():
        made = Celery("shop", namespace=request.param)
        prefix = f"{request.param}_" if request.param else ""
        values = {"stargate_url": "ws://own:1", "broker_url": "redis://own:1"}
        if prefix:
            values = {prefix + name.upper(): value for name, value in values.items()}
        made.config_from_object(type("Settings", (), values), namespace=request.param)
        Stargate(made)
        yield made


def test_they_are_back_afterwards(app: Celery) -> None:
    """Those of the app, and those that it did not have."""
    stargate = Stargate.of(app)
    assert stargate.settings.url == "ws://own:1"
    with configured(app, stargate_url="ws://other:1", stargate_topic="t", task_always_eager=True):
        assert (stargate.settings.url, stargate.settings.produce_timeout) == ("ws://other:1", 30)
        assert stargate.settings.topic is not None
        assert app.conf.task_always_eager
        with configured(app, stargate_url="ws://third:1"):
            assert stargate.settings.url == "ws://third:1"
        assert stargate.settings.url == "ws://other:1"
    after = Stargate.of(app).settings
    assert after.url == "ws://own:1"
    assert after.topic is None
    assert not app.conf.task_always_eager
    assert app.conf.broker_url == "redis://own:1"


def test_the_broker_and_the_backend_are_made_again(app: Celery) -> None:
    """With the settings of that time."""
    with configured(app, broker_url="memory://", result_backend="cache+memory://"):
        inside = app.backend
        assert _transport(app.connection_for_write()) == "memory"
        with app.producer_pool.acquire() as producer:
            assert _transport(producer.connection) == "memory"
    assert app.backend is not inside
    assert _transport(app.connection_for_write()) == "redis"


def _transport(connection: Any) -> str:
    return str(connection.transport_cls)


def test_a_wrong_setting_is_told_at_once(app: Celery) -> None:
    """And the app has its own again."""
    text = "(?i)there is no setting .*topik"
    with pytest.raises(ConfigurationError, match=text), configured(app, stargate_topik="x"):
        pytest.fail("it was entered")
    assert Stargate.of(app).settings.url == "ws://own:1"


def test_in_memory_alone(app: Celery) -> None:
    """Without the plugin, as in a `TestCase`."""
    stargate = Stargate.of(app)
    with in_memory(app, stargate_topic="orders") as pulsar:
        stargate.produce_many(["a", "b"])
        assert pulsar.payloads("orders") == [b"a", b"b"]
        pulsar.assert_produced("orders", count=2)
        pulsar.clear()
        pulsar.assert_produced("orders", count=0)
    with pytest.raises(ConfigurationError, match="messages are not in memory"):
        pulsar.messages("orders")


def test_messages_in_memory_are_kept(app: Celery) -> None:
    """Of each time its own; other settings alone change nothing of them."""
    stargate = Stargate.of(app)
    with in_memory(app, stargate_topic="orders") as outer:
        stargate.produce("a")
        with in_memory(app) as inner:
            stargate.produce("b")
            assert inner.payloads("orders") == [b"b"]
        with configured(app, stargate_topic="others"):
            stargate.produce("c")
        outer.receipts.fail_next()
        with pytest.raises(ProduceError):
            stargate.produce("d")
        assert outer.payloads("orders") == [b"a"]
        assert outer.payloads("others") == [b"c"]
