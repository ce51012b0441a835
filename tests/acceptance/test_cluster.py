"""A Redis Cluster under faults; its long form is `python -m tests.acceptance.cluster`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.cluster import Chaos, Cluster
from tests.servers import cluster as cluster_module
from tests.servers.fixtures import PulsarAddress, ServerAddress, require


@pytest.mark.timeout(400)
def test_messages_over_lanes_under_faults(
    pulsar: PulsarAddress, redis_server: ServerAddress, tmp_path: Path
) -> None:
    """A slot moves, a master is killed, and a worker: none is lost, and each lane is in order."""
    require(cluster_module.missing_reason())
    servers = Cluster(tmp_path / "cluster")
    with Chaos(pulsar.url, pulsar.admin, redis_server.url, servers, tmp_path) as chaos:
        found = chaos.run(2400)
    assert found.good, found
