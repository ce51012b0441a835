"""The outbox whose lanes are on a Redis Cluster: from the commit to the receipt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import override_settings

from celery_stargate import Acknowledger
from celery_stargate.contrib.django import handover, lanes
from celery_stargate.contrib.django.closer import Closer
from celery_stargate.contrib.django.operations import requeue
from celery_stargate.contrib.django.relay import run_burst
from celery_stargate.support.stop_event import StopEvent
from celery_stargate.testing import LocalPulsar
from tests.django_project.rig import OutboxRig
from tests.integration.rig import wait_for
from tests.servers import cluster as cluster_module
from tests.servers.cluster import ClusterServers
from tests.servers.fixtures import ServerAddress, require

pytestmark = pytest.mark.parametrize("using", ["default"], indirect=True)

#: What Pulsar says to a message that it will never take.
REFUSED = "org.apache.pulsar.client.api.PulsarClientException$NotAllowedException: never"


@pytest.fixture
def local() -> Iterator[LocalPulsar]:
    """A Pulsar for faults on demand."""
    with LocalPulsar() as local:
        yield local


@pytest.fixture
def rig(
    using: str,
    redis_server: ServerAddress,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    local: LocalPulsar,
) -> Iterator[OutboxRig]:
    """The outbox; its broker and its results are on a single server."""
    require(cluster_module.missing_reason())
    with (
        ClusterServers(tmp_path, masters=2, replicas=0) as cluster,
        OutboxRig(
            using,
            redis_server.url,
            local.url,
            stargate_redis_url=cluster.url,
            stargate_lanes=6,
        ) as rig,
        override_settings(CELERY_STARGATE_OUTBOX_CLOSE_QUEUE=f"{rig.name}-close"),
    ):
        monkeypatch.setattr(lanes, "current_stargate", lambda: rig.stargate)
        monkeypatch.setattr(handover, "_breaker", handover._Breaker())
        yield rig


def test_from_the_commit_to_the_receipt(rig: OutboxRig, local: LocalPulsar) -> None:
    """By the caller and by the relay, in lanes of both masters; what failed is requeued."""
    stop = StopEvent()
    closer = Closer(rig.stargate, f"{rig.name}-close", stop)
    closer.start()
    try:
        with Acknowledger(rig.stargate.app):
            rig.write(*[(f"k{n}", f"a{n}") for n in range(20)])
            rig.write(*[(f"k{n}", f"b{n}") for n in range(20)], late=True)
            assert run_burst(rig.using) == 20
            wait_for(lambda: rig.states() == {"stored"})
            local.faults.fail_sends(REFUSED, count=1)
            (handle,) = rig.write("c")
            wait_for(lambda: handle.state() == "refused")
            assert [each.id for each in rig.stargate.dead_letters.find()] == [handle.context]
            assert requeue(rig.rows.filter(uuid=handle.uuid)) == 1
            assert run_burst(rig.using) == 1
            wait_for(lambda: rig.states() == {"stored"})
    finally:
        stop.set()
        closer.join(20)
    assert list(rig.stargate.dead_letters.find()) == []
    payloads = [each.decode() for each in local.payloads(rig.topic)]
    assert sorted(payloads) == sorted([*(f"{x}{n}" for n in range(20) for x in "ab"), "c"])
    assert all(payloads.index(f"a{n}") < payloads.index(f"b{n}") for n in range(20))
