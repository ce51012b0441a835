"""``stargate_callbacks="until_started"``: a callback that Celery's broker loses runs anyway."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker

from celery_stargate import Acknowledger, ProduceTask, Stargate
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for
from tests.servers.fixtures import ServerAddress


@pytest.fixture
def client(redis_server: ServerAddress) -> Any:
    """Looks into the lanes' Redis, and loses what the broker has."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def make(make_app: MakeApp, local: LocalPulsar) -> Celery:
    """An app whose callbacks must start within a second."""
    return make_app(local.url, callbacks="until_started", callback_start_timeout=1.0, worker=False)


def test_a_callback_that_the_broker_loses(
    local: LocalPulsar, make_app: MakeApp, client: redis.Redis, prefix: str
) -> None:
    """It is published again with the same id, and forgotten when its task has started."""
    app = make(make_app, local)
    ran: list[tuple[str, Any]] = []
    done = threading.Event()

    @app.task(name="paid", bind=True, shared=False)
    def paid(self: Any, receipt: Any) -> None:
        ran.append((self.request.id, receipt["status"]))
        done.set()

    queue, kept = f"{prefix}:callbacks", RegistryKeys(prefix).key("unstarted")
    with Acknowledger(app):
        Stargate.of(app).produce("x", on_ack=paid.s())
        wait_for(lambda: client.llen(queue), 20.0, "it is published")
        [first] = client.zrange(kept, 0, -1)
        client.delete(queue)
        wait_for(lambda: client.llen(queue), 20.0, "it is published again")
        with start_worker(app, pool="solo", perform_ping_check=False, loglevel="ERROR"):
            assert done.wait(20)
            wait_for(lambda: not client.exists(kept), 20.0, "it is forgotten")
    assert {each.encode() for each, _ in ran} == {first}
    assert ran[0][1] == "stored"


@pytest.mark.parametrize("via", ["lane", "broker"])
def test_a_callback_that_is_a_produce_task(
    local: LocalPulsar, make_app: MakeApp, client: redis.Redis, prefix: str, via: str
) -> None:
    """It starts when its message is in its lane; else it would be sent again and again."""
    app = make(make_app, local)
    app.conf.stargate_worker = via == "broker"
    second: Any = app.tasks[ProduceTask.default_name].si("second", via=via)
    kept = RegistryKeys(prefix).key("unstarted")
    with contextlib.ExitStack() as stack:
        if via == "lane":
            stack.enter_context(Acknowledger(app))
        else:
            worker = start_worker(app, pool="solo", perform_ping_check=False, loglevel="ERROR")
            stack.enter_context(worker)
        Stargate.of(app).produce("first", on_ack=second)
        topic = Stargate.of(app).settings.resolve(None)[0]
        local.wait_for_messages(str(topic), 2, timeout=20)
        wait_for(lambda: not client.exists(kept), 20.0, "it is forgotten")
    assert local.payloads(str(topic)) == [b"first", b"second"]


def test_a_callback_that_has_expired(
    local: LocalPulsar, make_app: MakeApp, client: redis.Redis, prefix: str
) -> None:
    """It never starts, and is not published again."""
    app = make(make_app, local)
    ran: list[Any] = []

    @app.task(name="paid", shared=False)
    def paid(receipt: Any) -> None:
        ran.append(receipt)

    queue, kept = f"{prefix}:callbacks", RegistryKeys(prefix).key("unstarted")
    with Acknowledger(app):
        Stargate.of(app).produce("x", on_ack=paid.s().set(expires=-1))
        wait_for(lambda: client.llen(queue), 20.0, "it is published")
        with start_worker(app, pool="solo", perform_ping_check=False, loglevel="ERROR"):
            wait_for(lambda: not client.exists(kept), 20.0, "it is forgotten")
    assert ran == []


def test_by_default_nothing_is_kept(
    local: LocalPulsar, make_app: MakeApp, client: redis.Redis, prefix: str
) -> None:
    """A callback is the broker's from when it is published."""
    app = make_app(local.url)
    with Acknowledger(app):
        Stargate.of(app).produce("x", on_ack=app.signature("paid"))
        wait_for(lambda: client.llen(f"{prefix}:callbacks"), 20.0, "it is published")
    assert not client.exists(RegistryKeys(prefix).key("unstarted"))
