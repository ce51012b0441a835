"""The Redis that holds the lanes, in each form: one server, behind Sentinel, and a Cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from celery_stargate.lanes.configured import OLDEST_FOR_CLUSTER
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.sync_cluster import ClusterClient
from celery_stargate.lanes.target import Target, parse_target
from celery_stargate.model.buckets import in_buckets
from tests.servers import cluster as cluster_module
from tests.servers import sentinel as sentinel_module
from tests.servers.cluster import ClusterServers
from tests.servers.fixtures import require
from tests.servers.sentinel import MASTER_NAME, SentinelServers

__all__ = ["TOPOLOGIES", "Topology", "flush_scripts", "single_server", "started"]

#: The forms of Redis on which the lanes must behave the same.
TOPOLOGIES = ("single", "sentinel", "cluster")

#: After how many seconds without an answer a server is held for down. No test that runs on every
#: form kills one, and on a busy machine one that is only slow must not be replaced.
_DOWN_AFTER = 60.0

#: As many as the default of ``stargate_redis_buckets``.
_BUCKETS = 16


#: Marks a test of what only a single server does.
single_server = pytest.mark.parametrize("topology", ["single"], indirect=True, scope="session")


@dataclass(frozen=True)
class Topology:
    """A Redis in one of the forms."""

    name: str
    #: ``stargate_redis_url``.
    url: str
    #: ``stargate_redis_options``.
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        """What the URL and the options name."""
        return parse_target(self.url).changed(self.options)

    @property
    def client(self) -> Any:
        """A client of all its keys; redis-py's types do not tell what it is."""
        return Connections(self.target).sync()

    def keyspace(self, prefix: str) -> str:
        """Return what keys begin with, as :attr:`Settings.keyspace` makes it."""
        return in_buckets(prefix, _BUCKETS) if self.name == "cluster" else prefix

    def forget(self, prefix: str) -> None:
        """Delete all keys that begin with a prefix of the settings."""
        client = self.client
        for key in list(client.scan_iter(f"{prefix}*", count=1000)):
            client.delete(key)
        client.close()


def flush_scripts(client: Any) -> None:
    """Let a Redis of any form forget its scripts."""
    for each in client.masters() if isinstance(client, ClusterClient) else [client]:
        each.script_flush()


@contextmanager
def started(name: str, folder: Path, single: Callable[[], str]) -> Iterator[Topology]:
    """Start a Redis of a form.

    Arguments:
        folder: where the servers write.
        single: returns the URL of the shared single server.
    """
    if name == "single":
        yield Topology(name, single())
    elif name == "sentinel":
        require(sentinel_module.missing_reason())
        with SentinelServers(folder, down_after=_DOWN_AFTER) as sentinels:
            yield Topology(name, sentinels.url, {"master_name": MASTER_NAME})
    else:
        require(cluster_module.missing_reason())
        if tuple(map(int, redis.__version__.split(".")[:2])) < OLDEST_FOR_CLUSTER:
            pytest.skip(f"redis-py {redis.__version__} is too old for a Cluster")
        slow = {"cluster-node-timeout": str(round(_DOWN_AFTER * 1000))}
        with ClusterServers(folder, config=slow) as nodes:
            yield Topology(name, nodes.url)
