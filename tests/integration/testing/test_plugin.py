"""The pytest plugin with a worker: a Redis, LocalPulsar or a real Pulsar, and threads."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from celery_stargate.testing import local_redis
from celery_stargate.testing.local_redis import LocalRedis
from tests.plugin_project import Project
from tests.servers.fixtures import PulsarAddress, ServerAddress, require
from tests.servers.ports import free_ports
from tests.servers.redis import missing_reason

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A user's project; its tests start a Redis."""
    require(missing_reason())
    return Project(pytester, monkeypatch)


_TEST = """
import pytest
import shop


def test_an_order_is_published_and_paid({fixtures}):
    receipt = shop.place_order(1, "lamp").get(timeout=20)
    stargate_pulsar.assert_produced("orders", payload={{"item": "lamp"}}, key="order-1", count=1)
    assert receipt["status"] == "stored"
"""


def test_a_worker(project: Project) -> None:
    """It publishes, stores the result and runs the callbacks; its faults are at hand. Each test has
    a new one."""
    project.run(
        """
        import time
        import pytest
        import shop
        from celery_stargate import ProduceError


        def eventually(condition):
            end = time.monotonic() + 20
            while not condition():
                assert time.monotonic() < end
                time.sleep(0.02)


        def test_published(stargate_worker, stargate_pulsar):
            receipt = shop.place_order(1, "lamp").get(timeout=20)
            assert receipt["status"] == "stored"
            stargate_pulsar.assert_produced("orders", payload={"item": "lamp"}, key="order-1")
            eventually(lambda: shop.paid == [(1, "stored")])


        def test_held(stargate_worker, stargate_pulsar, stargate_receipts):
            stargate_receipts.hold()
            result = shop.place_order(2, "lamp")
            stargate_pulsar.assert_produced("orders", key="order-2", count=1)
            assert not result.ready()
            stargate_receipts.release()
            assert result.get(timeout=20)["status"] == "stored"
            eventually(lambda: (2, "stored") in shop.paid)


        def test_refused(stargate_worker, stargate_receipts):
            stargate_receipts.fail_next("send-error:8")
            with pytest.raises(ProduceError):
                shop.place_order(3, "lamp").get(timeout=20)
            eventually(lambda: (3, "send-error:8") in shop.refused)


        @pytest.mark.parametrize("code", [409, 1011])
        def test_repeated_until_it_goes(stargate_worker, stargate_receipts, code):
            stargate_receipts.fail_next(code)
            assert shop.place_order(4, "lamp").get(timeout=20)["status"] == "stored"
        """,
        apart=True,
    ).assert_outcomes(passed=5)


def test_beside_celerys_own_plugin(project: Project) -> None:
    """Its app and its worker, with our Pulsar and Redis: none of the fixtures collide."""
    project.run(
        """
        import pytest
        from celery_stargate import Stargate, ProduceTask


        @pytest.fixture
        def stargate_base_app(celery_app):
            Stargate(celery_app)
            return celery_app


        def test_celerys_worker(stargate_app, celery_worker, stargate_pulsar):
            produce = stargate_app.tasks[ProduceTask.default_name]
            receipt = produce.delay("lamp", topic="orders").get(timeout=20)
            assert receipt["status"] == "stored"
            stargate_pulsar.assert_produced("orders", payload="lamp")
        """,
        "-p",
        "celery.contrib.pytest",
        apart=True,
    ).assert_outcomes(passed=1)


def test_on_a_real_pulsar(
    project: Project, pulsar: PulsarAddress, redis_server: ServerAddress
) -> None:
    """By one option; faults are skipped there."""
    test = _TEST.format(fixtures="stargate_worker, stargate_pulsar") + (
        "\n\ndef test_eager(stargate_eager):\n"
        "    shop.place_order(2, 'lamp')\n"
        "    stargate_eager.assert_produced('orders', key='order-2', count=1)\n"
        "\n\ndef test_faults(stargate_eager, stargate_receipts):\n"
        "    stargate_receipts.hold()\n"
        "\n\ndef test_more_faults(stargate_pulsar):\n"
        "    stargate_pulsar.faults.freeze()\n"
    )
    run = project.run(
        test,
        f"--stargate-url={pulsar.url}",
        f"--stargate-redis-url={redis_server.url}",
        apart=True,
    )
    run.assert_outcomes(passed=2, skipped=2)


@pytest.mark.parametrize("fake", [False, True])
def test_a_redis_of_its_own(fake: bool) -> None:
    """It answers, forgets, and ends."""
    require(missing_reason())
    server = LocalRedis(fake=fake)
    with server:
        assert server.url.startswith("redis://127.0.0.1:")
        server.flush()
        url = server.url
    with pytest.raises(OSError, match="refused"):
        _connect(url)


def test_a_port_that_another_redis_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """That one is not taken for the own: its keys would be deleted."""
    require(missing_reason())
    with LocalRedis() as other:
        taken = urlsplit(other.url).port or 0
        ports = iter([taken, *free_ports(1)])
        monkeypatch.setattr(local_redis, "_free_port", lambda: next(ports))
        with LocalRedis() as server:
            assert server.url != other.url


def _connect(url: str) -> None:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    socket.create_connection((parts.hostname, parts.port), timeout=5).close()


def test_without_a_redis(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests that need it are skipped with what to do; on CI they fail."""
    test = "import celery_stargate.testing.fixtures\n" + _TEST.format(
        fixtures="stargate_worker, stargate_pulsar"
    )
    monkeypatch.setattr(LocalRedis, "missing_reason", staticmethod(lambda: "there is no Redis"))
    monkeypatch.delenv("CI", raising=False)
    project.run(test).assert_outcomes(skipped=1)
    monkeypatch.setenv("CI", "true")
    run = project.run(test)
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["*there is no Redis*"])
