"""Other brokers and result backends than Redis: the lanes' Redis is set by `stargate_redis_url`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group

from celery_stargate import ProduceError
from tests.acceptance.conftest import MakeRig
from tests.acceptance.rig import WAIT, Rig, Worker
from tests.servers.fixtures import ServerAddress

SETUPS = ["redis", "rpc", "filesystem"]


@pytest.fixture(scope="module", params=SETUPS)
def rig(
    make_rig: MakeRig,
    rabbitmq: ServerAddress,
    redis_server: ServerAddress,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Rig:
    """An app with RabbitMQ as its broker, and each of the result backends in turn."""
    folder = tmp_path_factory.mktemp("results")
    backend = {
        "redis": redis_server.url,
        "rpc": "rpc://",
        "filesystem": f"file://{folder}",
    }[request.param]
    made: Rig = make_rig(
        broker_url=rabbitmq.url,
        result_backend=backend,
        stargate_redis_url=redis_server.url,
    )
    return made


@pytest.fixture(scope="module")
def worker(rig: Rig) -> Iterator[Worker]:
    """A prefork worker of it."""
    with rig.worker() as worker:
        yield worker
        assert worker.complaints() == []


pytestmark = pytest.mark.usefixtures("worker")


def test_results(rig: Rig) -> None:
    """A receipt, a list of them, and a failure with Pulsar's sentence."""
    topic = rig.topic()
    receipt = rig.produce.delay(("k", "one"), topic=topic).get(timeout=WAIT)
    receipts = rig.produce.delay(["a", "b"], topic=topic).get(timeout=WAIT)
    stored = rig.read(topic, 3)
    assert [receipt["message_id"], *(each["message_id"] for each in receipts)] == [
        each["messageId"] for each in stored
    ]
    with pytest.raises(ProduceError, match="Namespace not found") as caught:
        rig.produce.delay("x", topic=rig.refused()).get(timeout=WAIT)
    assert caught.value.failure["code"] == "http-404"


def test_many_results(rig: Rig) -> None:
    """Hundreds of results, in order in the topic."""
    topic = rig.topic()
    results = [rig.produce.delay(str(n), topic=topic) for n in range(200)]
    assert {each.get(timeout=WAIT)["status"] for each in results} == {"stored"}
    assert rig.texts(topic, 200) == [str(n) for n in range(200)]


def test_by_the_broker(rig: Rig) -> None:
    """`via="broker"`, by name, and with a countdown."""
    topic = rig.topic()
    results = [
        rig.produce.delay("via", topic=topic, via="broker"),
        rig.app.send_task(rig.produce.name, ("named",), {"topic": topic}),
        rig.produce.apply_async(("later",), {"topic": topic}, countdown=0.5),
    ]
    assert [each.get(timeout=WAIT)["status"] for each in results] == ["stored"] * 3
    assert sorted(rig.texts(topic, 3)) == ["later", "named", "via"]


def test_chain_and_group(rig: Rig) -> None:
    """A chain through a task of the pool, and a group."""
    topic = rig.topic()
    result = chain(rig.task("build").s(1), rig.produce.s(topic=topic), rig.task("place").s())()
    assert result.get(timeout=WAIT).startswith("after ")
    together = group(rig.produce.s(str(n), topic=topic) for n in range(3))()
    assert {each["status"] for each in together.get(timeout=WAIT)} == {"stored"}


def test_callbacks(rig: Rig) -> None:
    """`on_ack`, `link`, `on_error` and `link_error`."""
    acked, failed, linked = rig.key(), rig.key(), rig.key()
    callbacks: dict[str, Any] = {"on_ack": rig.record(acked), "on_error": rig.record(failed)}
    good = rig.produce.apply_async(("x",), callbacks, link=rig.record(linked))
    receipt = good.get(timeout=WAIT)
    assert rig.recorded(acked)[0]["argument"] == rig.recorded(linked)[0]["argument"] == receipt
    bad = rig.produce.apply_async(
        ("x",),
        {"topic": rig.refused(), **callbacks},
        link_error=rig.task("errback").s(linked),
    )
    assert rig.recorded(failed)[0]["argument"]["context"] == bad.id
    assert rig.recorded(linked, 2)[1]["id"] == bad.id


def test_chord(rig: Rig) -> None:
    """A chord, where the backend knows chords; Celery's rpc one says that it knows none."""
    topic = rig.topic()
    header = [rig.produce.s(str(n), topic=topic) for n in range(5)]
    if rig.conf["result_backend"] == "rpc://":
        with pytest.raises(NotImplementedError, match="[Cc]hord"):
            chord(header, rig.task("count").s())()
        return
    assert chord(header, rig.task("count").s())().get(timeout=WAIT) == [5, ["stored"]]


def test_no_file_of_a_result_is_left_behind_here(rig: Rig, worker: Worker) -> None:
    """The worker lived through it; results went where the setting says."""
    assert worker.alive
    assert not list(Path.cwd().glob("celery-task-meta-*"))
