"""Celery's broker or the result backend is away, or hangs: what needs neither goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from celery_stargate import Acknowledger, ProduceTimeout, Stargate, produce_task
from celery_stargate.delivery.thread import _CLOSING
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import Triggered, wait_for
from tests.servers import redis as redis_module
from tests.servers.fixtures import ServerAddress, require
from tests.servers.redis import RedisServer

DRAIN = 1.0

SplitApp = Callable[..., Celery]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that the test may freeze."""
    require(redis_module.missing_reason())
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def app_on(make_app: MakeApp, local: LocalPulsar, redis_server: ServerAddress) -> SplitApp:
    """Make apps of which one server is another one, and not that of the lanes."""

    def make(**conf: Any) -> Celery:
        return make_app(local.url, redis_url=redis_server.url, drain_timeout=DRAIN, conf=conf)

    return make


@pytest.mark.parametrize("what", ["broker_url", "result_backend"])
def test_a_server_that_hangs(app_on: SplitApp, other: RedisServer, topic: str, what: str) -> None:
    """Callers get their receipts, the process stops in time, and what was due is done later."""
    app = app_on(**{what: other.url})
    stargate = Stargate.of(app)
    acknowledger = Acknowledger(app)
    with acknowledger:
        stargate.produce("warm", timeout=20)
        if what == "broker_url":
            other.pause()
            context = stargate.produce("with a callback", on_ack=app.signature("yes"))
        else:
            result = app.tasks[produce_task.name].apply_async(("with a result",))
            context = result.id
            assert result.get(timeout=20)
            other.pause()
            callback = app.signature("yes")
            stargate.produce("needs no backend", on_ack=callback)
            assert Triggered(app).next()["id"]
        # Another topic, and the same one: neither waits for what hangs.
        for each in (f"{topic}-2", topic):
            assert stargate.produce("needs neither", topic=each, timeout=10).status == "stored"
        began = time.monotonic()
        acknowledger.stop()
        assert time.monotonic() - began < DRAIN + _CLOSING
        assert not acknowledger.running
    other.resume()
    if what == "broker_url":
        with Acknowledger(app):
            assert Triggered(app).next()["args"][0]["context"] == context


def test_a_caller_past_its_deadline_reads_what_redis_has(
    app_on: SplitApp, other: RedisServer
) -> None:
    """The callback hangs in the broker; the caller of a context without a message gets its own."""
    app = app_on(broker_url=other.url)
    with Acknowledger(app) as acknowledger:
        Stargate.of(app).produce("warm", timeout=20)
        other.pause()
        future = acknowledger.produce("late", on_error=app.signature("no"), timeout=0.5)
        error = future.exception(timeout=10)
        assert isinstance(error, ProduceTimeout)
        began = time.monotonic()
    assert time.monotonic() - began < DRAIN + _CLOSING
    other.resume()


def test_effects_due_after_an_outage_are_done(
    app_on: SplitApp, other: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The breaker lets one try through; then the rest."""
    app = app_on(broker_url=other.url)
    with Acknowledger(app):
        other.pause()
        contexts = {Stargate.of(app).produce(f"{n}", on_ack=app.signature("yes")) for n in range(3)}
        wait_for(lambda: "no answer for" in caplog.text)
        other.resume()
        triggered = Triggered(app)
        found = {triggered.next(30)["args"][0]["context"] for _ in contexts}
    assert found == contexts
