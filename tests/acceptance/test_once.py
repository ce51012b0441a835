"""Effectively once, with real workers and a real broker that are killed, or frozen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.once import Bench
from tests.acceptance.rig import WAIT, Rig, Worker, eventually
from tests.servers import pulsar as pulsar_module
from tests.servers.fixtures import ServerAddress, require
from tests.servers.pulsar import PulsarServer

pytestmark = pytest.mark.timeout(300)

#: Seconds after which this broker's proxy drops a session of which it hears nothing.
SESSION = 6.0


def test_workers_and_the_broker_killed(tmp_path: Path) -> None:
    """Thousands in flight: each stands in the topic once, in order, and its caller has a receipt.
    `python -m tests.acceptance.once` has more of them."""
    require(pulsar_module.missing_reason())
    with Bench(tmp_path) as bench:
        run = bench.run(5, 3000)
    assert run.worker_kills > 0
    assert run.broker_kills > 0
    assert run.good, str(run)


def test_control_without_deduplication(tmp_path: Path) -> None:
    """The same kills where the broker does not deduplicate: the run can see what is there twice."""
    require(pulsar_module.missing_reason())
    with Bench(tmp_path, deduplication=False) as bench:
        run = bench.run(5, 3000)
    assert run.worker_kills == 3
    assert run.lost == 0
    assert run.duplicates > 0, str(run)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulsarServer]:
    """A broker that drops silent sessions soon; by default it is after five minutes."""
    require(pulsar_module.missing_reason())
    server = PulsarServer(
        tmp_path_factory.mktemp("impatient-pulsar"),
        extra={"webSocketSessionIdleTimeoutMillis": str(round(SESSION * 1000))},
    )
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def rig(broker: PulsarServer, redis_server: ServerAddress, logs: Path) -> Iterator[Rig]:
    """An app on it, whose sockets are kept alive by pings."""
    conf = {
        "stargate_delivery": "effectively_once",
        "stargate_ping_interval": SESSION / 3,
    }
    with Rig(broker.url, broker.admin, redis_server.url, logs, conf) as rig:
        yield rig


def test_a_frozen_owner(rig: Rig) -> None:
    """The owner is frozen with messages in flight, longer than its lease: its producer's name is
    taken until the proxy drops its session, and the next owner waits for that. When the frozen one
    goes on, it does no harm."""
    topic = rig.topic()
    with rig.worker(pool="solo") as one, rig.worker(pool="solo") as two:
        for worker in (one, two):
            worker.pause()
        results = [rig.produce.delay(str(n), topic=topic) for n in range(4000)]
        for worker in (one, two):
            worker.resume()
        assert eventually(lambda: rig.pending(topic) < 3000, every=0.001)
        frozen, awake = (one, two) if _owns(rig, one, topic) else (two, one)
        frozen.pause()
        try:
            left = rig.pending(topic)
            assert _owns(rig, frozen, topic)
            assert left > 500, "all but a few were stored before the freeze"
            statuses = {result.get(timeout=WAIT + SESSION)["status"] for result in results}
            assert _owns(rig, awake, topic)
            assert "HTTP 409" in awake.log()
        finally:
            frozen.resume()
        assert statuses <= {"stored", "deduplicated"}
        after = rig.produce.delay("after", topic=topic)
        assert after.get(timeout=WAIT)["status"] == "stored"
        assert rig.texts(topic) == [*map(str, range(4000)), "after"]


def _owns(rig: Rig, worker: Worker, topic: str) -> bool:
    return f"-{worker.pid}-" in (rig.owner(topic) or "")
