"""``dead`` with 10,000 dead letters: the first row at once, and Redis is never blocked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from celery_stargate import Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.operations.dead_pages import read_page
from celery_stargate.operations.dead_views import DeadLetterFilter, DeadResult
from celery_stargate.operations.reading import reader_of
from tests.integration.cli.conftest import Run
from tests.integration.cli.slow_log import never_blocked
from tests.integration.conftest import MakeApp
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer, missing_reason

_LETTERS = 10_000
_TOPIC = "persistent://public/default/large"


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis with one lane of 10,000 dead letters, each of about 1 KiB."""
    require(missing_reason())
    with RedisServer(tmp_path_factory.mktemp("dead")) as running:
        with redis.Redis.from_url(running.url) as client:
            fill(client, Lane(_TOPIC))
        yield running


def fill(client: redis.Redis, lane: Lane) -> None:
    """Write dead letters, as ``dead_letters.lua`` does."""
    now = int(time.time() * 1000)
    with client.pipeline(transaction=False) as pipeline:
        for n in range(_LETTERS):
            name = f"c{n:05}"
            frame = f'{{"payload":"{"QUJD" * 256}","context":"{name}"}}'
            body = f'{{"context":"{name}"}}\n{frame}'
            head = f"1 m 1 {now} {now + n} {n + 1} {len(body)}\nProduceTimeout deadline\n0"
            pipeline.zadd(lane.key("large", "dead"), {name: now + n})
            pipeline.hset(lane.key("large", "dead_letters"), name, head)
            pipeline.hset(lane.key("large", "dead_bodies"), name, body)
        counts: dict[Any, Any] = {"ProduceTimeout deadline": _LETTERS, "recorded": _LETTERS}
        pipeline.hset(lane.key("large", "dead_counts"), mapping=counts)
        pipeline.zadd("large:{registry}:lanes", {lane.name: time.time()})
        pipeline.execute()


@pytest.fixture
def app(make_app: MakeApp, server: RedisServer) -> Celery:
    """An app with these lanes."""
    return make_app("ws://127.0.0.1:1", redis_url=server.url, prefix="large", topic=_TOPIC)


def test_no_command_blocks_redis(run: Run, app: Celery, server: RedisServer) -> None:
    """Questions, a replay of half of them, and the discarding of the rest."""
    letters = Stargate.of(app).dead_letters
    began = time.perf_counter()
    next(letters.find())
    assert time.perf_counter() - began < 1.0
    with redis.Redis.from_url(server.url) as client:
        with never_blocked(client):
            began = time.perf_counter()
            found = read_page(reader_of(Stargate.of(app).runtime), DeadLetterFilter())
            assert len(found.letters) == 100
            assert time.perf_counter() - began < 1.0
            assert len(run("dead", "list", "--json").lines) == _LETTERS
            assert run("dead", "list", "--by-cause", "--json").lines[0]["count"] == _LETTERS
            assert run("dead", "show", "c05000", "--json").json["replayable"]
            half = list(letters.letters())[: _LETTERS // 2]
            assert {each.result for each in letters.replay(half)} == {DeadResult.DONE}
            assert run("dead", "discard", "--all", "--yes", "--json").code == 0
        # Each script moves ten at most: 25 held a busy Redis for more than 5 ms.
        untyped: Any = client
        assert untyped.info("commandstats")["cmdstat_evalsha"]["calls"] >= _LETTERS / 10
        assert client.xlen(Lane(_TOPIC).key("large", "log")) == _LETTERS // 2
    assert letters.totals().count == 0
