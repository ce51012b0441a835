"""A worker's container is killed, and another goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import pytest
from celery import Celery
from pytest_celery import (
    DEFAULT_WORKER_CONTAINER_TIMEOUT,
    DEFAULT_WORKER_VOLUME,
    CeleryTestWorker,
    CeleryWorkerCluster,
)
from pytest_docker_tools import container, fxtr

from celery_stargate import produce_task
from celery_stargate.testing.pytest_celery import PulsarTestContainer, StargateWorkerContainer
from tests.pytest_celery.conftest import WAIT, Setup, eventually
from tests.pytest_celery.tasks import note

_COUNT = 500

second_worker_container = container(
    image="{celery_base_worker_image.id}",
    ports=fxtr("default_worker_ports"),
    environment=fxtr("default_worker_env"),
    network="{default_pytest_celery_network.name}",
    volumes={"{default_worker_volume.name}": DEFAULT_WORKER_VOLUME},
    wrapper_class=StargateWorkerContainer,
    timeout=DEFAULT_WORKER_CONTAINER_TIMEOUT,
    command=fxtr("default_worker_command"),
)


@pytest.fixture
def second_worker(
    second_worker_container: StargateWorkerContainer, default_worker_app: Celery
) -> Iterator[CeleryTestWorker]:
    worker = CeleryTestWorker(second_worker_container, app=default_worker_app)
    yield worker
    worker.teardown()


@pytest.fixture
def celery_worker_cluster(
    celery_worker: CeleryTestWorker, second_worker: CeleryTestWorker
) -> Iterator[CeleryWorkerCluster]:
    cluster = CeleryWorkerCluster(celery_worker, second_worker)
    yield cluster
    cluster.teardown()


@contextmanager
def frozen(engine: docker.DockerClient, pulsar: PulsarTestContainer) -> Iterator[None]:
    """Freeze the broker: no receipt comes meanwhile."""
    raw = engine.containers.get(pulsar.id)
    raw.pause()
    try:
        yield
    finally:
        raw.unpause()


def test_a_worker_is_killed_with_all_in_flight(
    celery_setup: Setup,
    docker_client: docker.DockerClient,
    default_pulsar_container: PulsarTestContainer,
    pulsar_topic: str,
    key: str,
) -> None:
    """Pulsar is frozen, so that no message has a receipt when the container of the lane's owner
    is killed. The other worker sends them all: each is stored, in order, each caller has its
    receipt, and each `on_ack` runs under one task id."""
    produce_task.delay("first", topic=pulsar_topic).get(timeout=WAIT)
    owner = celery_setup.owner(pulsar_topic)
    assert owner is not None
    [victim] = [
        worker
        for worker in celery_setup.worker_cluster
        if owner.startswith(worker.container.attrs["Config"]["Hostname"])
    ]
    acked, failed = f"{key}-acked", f"{key}-failed"
    results: list[Any] = []
    with frozen(docker_client, default_pulsar_container):
        for n in range(_COUNT):
            on_ack = note.s(acked) if n % 10 == 0 else None
            result = produce_task.delay(
                str(n), topic=pulsar_topic, on_ack=on_ack, on_error=note.s(failed)
            )
            results.append(result)
        victim.kill()
        assert victim.container.status == "exited"
    assert not any(result.ready() for result in results), "a receipt came before the kill"
    for result in results:
        assert result.get(timeout=WAIT)["status"] == "stored"

    new_owner = celery_setup.owner(pulsar_topic)
    assert new_owner is not None and new_owner != owner
    wanted = {result.id for result in results[::10]}
    assert eventually(
        lambda: {each["argument"]["context"] for each in celery_setup.noted(acked)} == wanted
    ), "an on_ack is missing"
    # One context, one task id, however often it was published.
    ids = {(each["argument"]["context"], each["id"]) for each in celery_setup.noted(acked)}
    assert len(ids) == len(wanted)
    assert celery_setup.noted(failed) == []

    held = default_pulsar_container.stored(pulsar_topic)
    texts = [each.payload for each in default_pulsar_container.read(pulsar_topic, held)]
    # At least once: what was stored without a receipt may be there twice, behind its first.
    firsts = list(dict.fromkeys(texts))
    assert firsts == [b"first", *(str(n).encode() for n in range(_COUNT))]
