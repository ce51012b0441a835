"""Pulsar or Redis away: what is recorded waits, what is late is told, nobody hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from celery_stargate import ProduceError, ProduceTimeout
from tests.acceptance.rig import WAIT, Rig, Worker, eventually
from tests.servers import pulsar as pulsar_module
from tests.servers import redis as redis_module
from tests.servers.fixtures import PulsarAddress, ServerAddress, require
from tests.servers.pulsar import PulsarServer
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.timeout(240)

#: How long a restarted broker and the reconnect may take together, in seconds.
BACK = 60.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulsarServer]:
    """A broker of this module's own."""
    require(pulsar_module.missing_reason())
    server = PulsarServer(tmp_path_factory.mktemp("own-pulsar"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def rig(broker: PulsarServer, redis_server: ServerAddress, logs: Path) -> Iterator[Rig]:
    """An app on that broker."""
    with Rig(broker.url, broker.admin, redis_server.url, logs) as rig:
        yield rig


@pytest.fixture(scope="module")
def worker(rig: Rig) -> Iterator[Worker]:
    """A worker of it that lives through all outages."""
    with rig.worker() as worker:
        yield worker


@pytest.fixture
def kept(rig: Rig) -> str:
    """A topic with a subscription: what nobody has subscribed to, a restarted broker forgets."""
    topic = rig.topic("kept")
    rig.admin.create_topic(topic)
    rig.admin.create_subscription(topic, "keep")
    return topic


def test_broker_killed_and_restarted(
    rig: Rig, worker: Worker, broker: PulsarServer, kept: str
) -> None:
    """The broker is killed with -9 in the middle, is away for a while, and comes back: all is
    stored, in order, every caller has a receipt. What was revoked meanwhile is not published;
    what was due meanwhile is refused, with every callback."""
    assert worker.alive
    acked, failed, linked = rig.key(), rig.key(), rig.key()
    killing, results = threading.Thread(target=broker.kill), []
    for n in range(1000):
        if n == 300:
            # While the worker sends what came before.
            killing.start()
        results.append(rig.produce.delay(str(n), topic=kept, on_ack=rig.record(acked)))
    killing.join()
    assert rig.pending(kept) > 0, "all was stored before the kill"
    results += [rig.produce.delay(str(n), topic=kept) for n in range(1000, 1200)]

    # Late: its deadline passes while the broker is away. On a lane of its own, never sent.
    late_topic = rig.topic("late")
    began = time.monotonic()
    late = rig.produce.apply_async(
        ("late",),
        {"topic": late_topic, "delivery_timeout": 1.5, "on_error": rig.record(failed)},
        link_error=rig.task("errback").s(linked),
    )
    with pytest.raises(ProduceTimeout) as caught:
        late.get(timeout=WAIT)
    assert 1.4 < time.monotonic() - began < 10
    assert (caught.value.status, caught.value.failure["code"]) == ("refused", "deadline")
    assert rig.recorded(failed)[0]["argument"]["context"] == late.id
    assert rig.recorded(linked)[0]["type"] == "ProduceTimeout"

    # A caller that waits by itself is told as well.
    with pytest.raises(ProduceTimeout) as waited:
        rig.stargate.produce("late too", topic=late_topic, timeout=1)
    assert waited.value.status == "refused"

    # Revoked while it waits in its lane.
    revoked_topic = rig.topic("revoked")
    revoked = rig.produce.delay("revoked", topic=revoked_topic, on_error=rig.record(failed))
    revoked.revoke()
    assert eventually(lambda: revoked.id in str(rig.app.control.inspect(timeout=1).revoked()))
    after = rig.produce.delay("after", topic=revoked_topic)

    broker.start()
    for result in results:
        assert result.get(timeout=BACK)["status"] == "stored"
    assert after.get(timeout=BACK)["status"] == "stored"
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=WAIT)
    assert str(revoked.state) == "REVOKED"
    assert {each["argument"]["code"] for each in rig.recorded(failed, 2)} == {
        *("deadline", "revoked")
    }
    assert rig.texts(revoked_topic, 1) == ["after"]
    assert list(dict.fromkeys(rig.texts(kept))) == [str(n) for n in range(1200)]
    assert len({each["argument"]["context"] for each in rig.recorded(acked, 1000)}) == 1000
    assert worker.complaints() == []


def test_broker_frozen_longer_than_a_deadline(
    rig: Rig, worker: Worker, broker: PulsarServer, kept: str
) -> None:
    """A broker that took the message and answers nothing: past the deadline it is unknown."""
    assert worker.alive
    rig.produce.delay("first", topic=kept).get(timeout=WAIT)
    broker.pause()
    try:
        with pytest.raises(ProduceTimeout) as caught:
            rig.produce.delay("second", topic=kept, delivery_timeout=1.5).get(timeout=WAIT)
    finally:
        broker.resume()
    assert caught.value.status == "unknown"
    assert rig.produce.delay("third", topic=kept).get(timeout=BACK)["status"] == "stored"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_redis_restarted_in_the_middle(
    pulsar: PulsarAddress, tmp_path: Path, logs: Path, how: str
) -> None:
    """Redis, which is broker, backend and the lanes' store, goes and comes back with its data:
    every message is stored, in order, and every caller has its receipt."""
    require(redis_module.missing_reason())
    config = {"appendfsync": "always"}
    with (
        RedisServer(tmp_path, appendonly=True, config=config) as server,
        Rig(pulsar.url, pulsar.admin, server.url, logs) as rig,
    ):
        topic, count = rig.topic(), 6000
        with rig.worker() as worker:
            # It begins with the whole of it.
            worker.pause()
            results: list[Any] = [rig.produce.delay(str(n), topic=topic) for n in range(count)]
            worker.resume()
            assert eventually(lambda: 2000 < rig.pending(topic) < count - 50, every=0.002)
            getattr(server, how)()
            server.start()
            left = rig.pending(topic)
            results += [rig.produce.delay(str(n), topic=topic) for n in range(count, count + 100)]
            for result in results:
                assert result.get(timeout=BACK)["status"] == "stored"
            assert left > 0, "all was done before Redis went"
            assert list(dict.fromkeys(rig.texts(topic))) == [str(n) for n in range(count + 100)]
            assert eventually(lambda: rig.pending(topic) == 0)
            assert worker.alive
            assert rig.produce.delay("last", via="broker").get(timeout=BACK)["status"] == "stored"


def test_backend_away_when_the_outcomes_come(
    pulsar: PulsarAddress, redis_server: ServerAddress, tmp_path: Path, logs: Path
) -> None:
    """The result backend, a Redis of its own, is away when Pulsar answers: the effects of a
    receipt and of a failure are done again until the callers have their results."""
    require(redis_module.missing_reason())
    with RedisServer(tmp_path, appendonly=True, config={"appendfsync": "always"}) as server:
        conf = {
            "result_backend": server.url,
            "stargate_redis_url": redis_server.url,
            "result_backend_transport_options": {
                "retry_policy": {"max_retries": 1, "interval_start": 0, "timeout": 1.0}
            },
        }
        with Rig(pulsar.url, pulsar.admin, redis_server.url, logs, conf) as rig:
            stored = rig.produce.delay("x")
            refused = rig.produce.delay("x", topic=rig.refused())
            server.stop()
            with rig.worker(pool="solo") as worker:
                assert eventually(lambda: "the result backend is away" in worker.log())
                server.start()
                assert stored.get(timeout=BACK)["status"] == "stored"
                with pytest.raises(ProduceError, match="Namespace not found"):
                    refused.get(timeout=BACK)
