"""A lane, its callers and its owners."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Iterator

import pytest
import redis

from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from tests.integration.lanes.rig import MakeOwner, Owner
from tests.servers.fixtures import ServerAddress
from tests.topology import TOPOLOGIES, Topology, started


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what tests lanes, and no server of its own, on each form of Redis."""
    own = inspect.signature(metafunc.function).parameters
    marks = metafunc.definition.iter_markers("parametrize")
    if "topology" in metafunc.fixturenames and not any(
        each.args[0] == "topology" for each in marks
    ):
        forms = TOPOLOGIES if {"lanes", "owner", "make_owner"} & own.keys() else TOPOLOGIES[:1]
        if {"redis_server", "tmp_path", "make_app", "app"} & set(metafunc.fixturenames):
            forms = TOPOLOGIES[:1]
        metafunc.parametrize("topology", forms, indirect=True, scope="session")


@pytest.fixture(scope="session")
def topology(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Topology]:
    """The Redis that holds the lanes."""

    def single() -> str:
        address: ServerAddress = request.getfixturevalue("redis_server")
        return address.url

    with started(request.param, tmp_path_factory.mktemp(request.param), single) as found:
        yield found


@pytest.fixture
def prefix(topology: Topology) -> Iterator[str]:
    """What all Redis keys of a test begin with; they are gone afterwards."""
    name = f"it-{uuid.uuid4().hex[:12]}"
    yield topology.keyspace(name)
    topology.forget(name)


@pytest.fixture
def client(topology: Topology) -> Iterator[redis.Redis]:
    """A plain client, to look into the keys."""
    client = topology.client
    yield client
    client.close()


@pytest.fixture
def lanes(topology: Topology, prefix: str) -> Outbox:
    """The callers' side."""
    return Outbox(Connections(topology.target), prefix)


@pytest.fixture
def lane(topic: str) -> Lane:
    """A lane that nobody used."""
    return Lane(topic)


@pytest.fixture
def make_owner(topology: Topology, prefix: str, lane: Lane) -> Iterator[MakeOwner]:
    """Make owners of the lane."""
    made: list[Owner] = []
    usual = lane

    def make(
        name: str = "owner",
        lease: float = 10.0,
        *,
        acquire: bool = True,
        lane: Lane | None = None,
    ) -> Owner:
        owner = Owner(topology.target, prefix, lane or usual, name, lease)
        made.append(owner)
        if acquire:
            assert owner.do(owner.store.acquire())
        return owner

    yield make
    for owner in made:
        owner.close()


@pytest.fixture
def owner(make_owner: MakeOwner) -> Owner:
    """An owner of the lane, its lease taken."""
    return make_owner()
