"""Fixtures of the acceptance tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.rig import Rig, Worker
from tests.servers.fixtures import PulsarAddress, ServerAddress
from tests.topology import TOPOLOGIES, Topology, started

MakeRig = Callable[..., Rig]


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where workers write their logs."""
    return tmp_path_factory.mktemp("workers")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the smoke tests on each form of Redis, and the others on a single server."""
    if "topology" in metafunc.fixturenames:
        smoke = metafunc.definition.get_closest_marker("smoke")
        forms = TOPOLOGIES if smoke else TOPOLOGIES[:1]
        metafunc.parametrize("topology", forms, indirect=True, scope="session")


@pytest.fixture(scope="session")
def topology(
    request: pytest.FixtureRequest,
    redis_server: ServerAddress,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Topology]:
    """The Redis that holds the lanes."""
    folder = tmp_path_factory.mktemp(request.param)
    with started(request.param, folder, lambda: redis_server.url) as found:
        yield found


@pytest.fixture(scope="module")
def make_rig(
    pulsar: PulsarAddress, redis_server: ServerAddress, logs: Path, topology: Topology
) -> Iterator[MakeRig]:
    """Make rigs on the shared servers, with settings of their own; all end with the module."""
    with ExitStack() as rigs:

        def make(*, redis_url: str | None = None, **conf: Any) -> Rig:
            if topology.name != "single":
                # Celery's broker and results stay where they are.
                conf = {
                    "stargate_redis_url": topology.url,
                    "stargate_redis_options": topology.options,
                    **conf,
                }
            rig = Rig(pulsar.url, pulsar.admin, redis_url or redis_server.url, logs, conf)
            return rigs.enter_context(rig)

        yield make


@pytest.fixture(scope="module")
def rig(make_rig: MakeRig) -> Rig:
    """An app on the shared servers: Redis is broker, backend and the lanes' store."""
    return make_rig()


@pytest.fixture(scope="module")
def worker(rig: Rig) -> Iterator[Worker]:
    """A prefork worker of that app, shared by the module's tests."""
    with rig.worker() as worker:
        yield worker
