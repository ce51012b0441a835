"""Lanes that do not move, and settings that do not fit."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import redis

from celery_stargate import Failure, Receipt, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.operations.pausing import Pauses
from celery_stargate.operations.reading import reader_of
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put
from tests.integration.operations.doctor.conftest import Diagnose
from tests.servers.fixtures import ServerAddress

_NOWHERE = "ws://127.0.0.1:1"


@pytest.fixture
def client(redis_server: ServerAddress) -> redis.Redis:
    """A plain client."""
    return redis.Redis.from_url(redis_server.url)


@pytest.mark.plants("workers")
def test_finds_that_nobody_sends(make_app: MakeApp, diagnose: Diagnose, topic: str) -> None:
    app = make_app(_NOWHERE)
    assert diagnose(app)["workers"].level == "warning"
    put(Stargate.of(app).lanes, Lane(topic), "a")
    found = diagnose(app)["workers"]
    assert (found.level, found.found) == ("error", "no worker is alive, and 1 contexts wait")


@pytest.mark.plants("lanes-deadlines")
def test_finds_deadlines_that_nobody_enforces(
    make_app: MakeApp, diagnose: Diagnose, topic: str, prefix: str, client: redis.Redis
) -> None:
    app, lane = make_app(_NOWHERE), Lane(topic)
    put(Stargate.of(app).lanes, lane, "a")
    client.zadd(lane.key(prefix, "deadlines"), {"a": 1.0})
    assert lane.name in diagnose(app)["lanes-deadlines"].found


@pytest.mark.plants("lanes-paused")
def test_finds_a_paused_topic(
    make_app: MakeApp, diagnose: Diagnose, topic: str, prefix: str
) -> None:
    app = make_app(_NOWHERE)
    put(Stargate.of(app).lanes, Lane(topic), "a")
    pauses = Pauses(reader_of(Stargate.of(app).runtime), prefix)
    pauses.pause(topic, 1, 60)
    assert f"resume {topic}" in diagnose(app)["lanes-paused"].mend
    pauses.resume(topic, 1)
    assert "lanes-paused" not in diagnose(app)


@pytest.mark.plants("lanes-dead-letters")
def test_finds_dead_letters(make_app: MakeApp, diagnose: Diagnose, topic: str) -> None:
    app, lane = make_app(_NOWHERE), Lane(topic)
    outbox = Stargate.of(app).lanes
    put(outbox, lane, "a")
    assert "lanes-dead-letters" not in diagnose(app)
    failure = Failure(context="a", topic=topic, status="refused", code="http-404", reason="no")
    settled = outbox.settle(lane, failure, anyone=True).settled
    assert settled is not None
    outbox.finish(lane, [settled])
    found = diagnose(app)["lanes-dead-letters"]
    assert found.found.startswith("1 messages failed") and "dead list" in found.mend


@pytest.mark.plants("lanes-effects")
def test_finds_effects_that_are_not_done(
    make_app: MakeApp, diagnose: Diagnose, topic: str, prefix: str, client: redis.Redis
) -> None:
    app, lane = make_app(_NOWHERE), Lane(topic)
    outbox = Stargate.of(app).lanes
    put(outbox, lane, "a")
    outbox.settle(lane, Receipt(context="a"))
    assert "lanes-effects" not in diagnose(app)
    client.zadd(lane.key(prefix, "due"), {"a": 1.0})
    assert "1 settled contexts" in diagnose(app)["lanes-effects"].found


@pytest.mark.plants("lanes-records")
def test_finds_records_of_another_version(
    make_app: MakeApp, diagnose: Diagnose, topic: str, prefix: str, client: redis.Redis
) -> None:
    app, lane = make_app(_NOWHERE), Lane(topic)
    put(Stargate.of(app).lanes, lane, "later")
    client.hset(lane.key(prefix, "contexts"), "later", "9 of a later version\n{}")
    assert "later" in diagnose(app)["lanes-records"].found


@pytest.mark.plants("lanes-settings")
def test_finds_lanes_of_other_settings(make_app: MakeApp, diagnose: Diagnose, topic: str) -> None:
    app = make_app(_NOWHERE, lanes=2)
    put(Stargate.of(app).lanes, Lane(topic, 1), "a")
    assert "lanes-settings" not in diagnose(app)
    put(Stargate.of(app).lanes, Lane(topic, 2), "b")
    assert f"{topic}#2" in diagnose(app)["lanes-settings"].found


@pytest.mark.parametrize("prefix", ["plain-lost", "odd*?[a]^-\\"])
@pytest.mark.plants("lanes-registry")
def test_finds_lanes_that_the_registry_lost(
    make_app: MakeApp, diagnose: Diagnose, topic: str, prefix: str, client: redis.Redis
) -> None:
    app, lane = make_app(_NOWHERE), Lane(topic)
    put(Stargate.of(app).lanes, lane, "a")
    put(Stargate.of(app).lanes, Lane(topic, 1), "b")
    assert "lanes-registry" not in diagnose(app)
    client.zrem(f"{prefix}:{{registry}}:lanes", lane.name)
    found = diagnose(app)["lanes-registry"]
    assert found.found.startswith(f"{lane.name} holds")
    # The line that mends it does.
    command = shlex.split(found.mend.removeprefix("redis-cli "))
    plain: Any = client
    plain.execute_command(*command)
    assert "lanes-registry" not in diagnose(app)
    client.delete(*client.scan_iter(f"*{topic}*"), f"{prefix}:{{registry}}:lanes")


@pytest.mark.parametrize(
    ("conf", "check", "words"),
    [
        ({"stargate_topik": "x"}, "settings", "stargate_topic"),
        ({"broker_url": "redis://:s3cr3t@127.0.0.1:1/0"}, "broker", "OperationalError"),
        ({"result_backend": "redis://:s3cr3t@127.0.0.1:1/0"}, "result-backend", "does not answer"),
        ({"broker_url": "foo://:s3cr3t@h"}, "broker", "No such transport: foo"),
        ({"result_backend": "foo://:s3cr3t@h"}, "result-backend", "No module named 'foo'"),
        ({"result_backend": None}, "result-backend", "no result backend"),
        (
            {"broker_transport_options": {"visibility_timeout": 5}},
            "visibility-timeout",
            "5 s",
        ),
    ],
)
@pytest.mark.plants("settings", "broker", "result-backend", "visibility-timeout")
def test_finds_what_is_wrong_with_celery(
    make_app: MakeApp,
    diagnose: Diagnose,
    redis_server: ServerAddress,
    conf: dict[str, object],
    check: str,
    words: str,
) -> None:
    found = diagnose(make_app(_NOWHERE, redis_url=redis_server.url, conf=conf))
    assert words in found[check].found
