"""Redis comes back with an older state, and its lane's owner lives on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from celery_stargate import Acknowledger, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.scripts import LANE_PARTS
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.delivery.test_effectively_once import send, statuses, texts
from tests.integration.rig import wait_for
from tests.servers.fixtures import ServerAddress


@pytest.fixture
def local() -> Iterator[LocalPulsar]:
    """A broker whose receipts can be lost."""
    with LocalPulsar() as local:
        yield local


@pytest.fixture
def client(redis_server: ServerAddress) -> Iterator[redis.Redis]:
    """Reads and restores keys."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def test_what_redis_knows_to_be_sent_is_stored_once(
    local: LocalPulsar, make_app: MakeApp, client: redis.Redis, topic: str
) -> None:
    """Its lease still holds, and it knows of fewer sent messages than the owner. What is pending in
    the older state goes again under its own name; new messages get another one."""
    app = make_app(local.url, delivery="effectively_once", lease=30.0)
    lane, prefix = Lane(topic), Stargate.of(app).settings.prefix
    keys = [lane.key(prefix, part) for part in LANE_PARTS if part != "lease"]
    meta = lane.key(prefix, "meta")

    def sent(count: int) -> None:
        wait_for(lambda: int(client.hget(meta, "sent") or 0) >= count, 20.0, "they are sent")
        wait_for(lambda: len(local.payloads(topic)) >= count, 20.0, "they are stored")

    with Acknowledger(app):
        local.faults.drop_receipts()
        pending = send(app, texts(5))
        sent(5)
        dumps: list[Any] = [client.dump(key) for key in keys]
        send(app, texts(3, 5))
        sent(8)
        with client.pipeline(transaction=True) as pipeline:
            for key, dump in zip(keys, dumps, strict=True):
                pipeline.delete(key)
                if dump is not None:
                    pipeline.restore(key, 0, dump)
            pipeline.execute()
        new = send(app, texts(3, 100))
        local.faults.clear()
        assert statuses([*pending, *new]) <= {"stored", "deduplicated"}
    found = [payload.decode() for payload in local.payloads(topic)]
    assert found == [*texts(8), *texts(3, 100)]
