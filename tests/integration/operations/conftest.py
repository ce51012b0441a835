"""Lanes with something in them, and what looks into them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.operations.contexts import ContextInspector
from celery_stargate.operations.inspect import LaneInspector
from celery_stargate.operations.reading import LaneReader
from tests.integration.lanes.rig import MakeOwner, Owner
from tests.servers.fixtures import ServerAddress


@pytest.fixture
def client(redis_server: ServerAddress) -> Iterator[redis.Redis]:
    """A plain client."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def outbox(redis_server: ServerAddress, prefix: str) -> Outbox:
    """The callers' side."""
    return Outbox(Connections(redis_server.url), prefix)


@pytest.fixture
def lane(topic: str) -> Lane:
    """A lane that nobody used."""
    return Lane(topic)


@pytest.fixture
def make_owner(redis_server: ServerAddress, prefix: str, lane: Lane) -> Iterator[MakeOwner]:
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
        owner = Owner(redis_server.url, prefix, lane or usual, name, lease)
        made.append(owner)
        if acquire:
            assert owner.do(owner.store.acquire())
        return owner

    yield make
    for owner in made:
        owner.close()


@pytest.fixture
def reader(client: redis.Redis, prefix: str) -> LaneReader:
    """Reads the lanes; calls are taken to have a timeout of 60 s, waiting ones of 30 s."""
    return LaneReader(client, prefix, lambda lane, waits: 30.0 if waits else 60.0)


@pytest.fixture
def lanes(reader: LaneReader) -> LaneInspector:
    """Answers questions about lanes."""
    return LaneInspector(reader)


@pytest.fixture
def contexts(reader: LaneReader) -> ContextInspector:
    """Answers questions about contexts."""
    return ContextInspector(reader)
