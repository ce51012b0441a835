"""A Redis that is full: nothing new is taken, and what is there drains all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from celery_stargate import Acknowledger, Stargate, StoreUnavailable, produce_task
from celery_stargate.lanes.lane import Lane
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer, missing_reason

MESSAGES = 300


def test_a_full_redis_drains(
    make_app: MakeApp, tmp_path: Path, local: LocalPulsar, topic: str
) -> None:
    """Put is refused with nothing recorded; an owner takes the lane and sends all that is there."""
    require(missing_reason())
    with RedisServer(tmp_path) as full:
        app = make_app(local.url, redis_url=full.url)
        results = [produce_task.delay(str(number)) for number in range(MESSAGES)]
        client = redis.Redis.from_url(full.url)
        # Less than it holds already: every command that needs memory is refused.
        client.config_set("maxmemory", "500kb")

        with pytest.raises(StoreUnavailable):
            produce_task.delay("one too many")
        contexts = Lane(topic).key(Stargate.of(app).settings.prefix, "contexts")
        assert client.hlen(contexts) == MESSAGES

        with Acknowledger(app):
            receipts = [result.get(timeout=20) for result in results]
        assert {receipt["status"] for receipt in receipts} == {"stored"}
        assert local.payloads(topic) == [str(number).encode() for number in range(MESSAGES)]
        client.close()
