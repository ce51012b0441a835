"""A Redis that is full: an operator can make room, and is told what happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from celery_stargate import Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record
from celery_stargate.operations.audit import operator
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.servers import redis as redis_module
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path, topic: str) -> Iterator[Celery]:
    """An app whose Redis is full, with three dead letters and a pending context."""
    require(redis_module.missing_reason())
    with RedisServer(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        app = make_app(None, redis_url=server.url)
        lanes, lane = Stargate.of(app).lanes, Lane(topic)
        for number in range(3):
            context = f"c{number}"
            lanes.put(lane, Record(context), [(context, b"x" * 1000)], timeout=60.0)
            client.zadd(lane.key(Stargate.of(app).settings.keyspace, "deadlines"), {context: 1})
        lanes.finish(lane, lanes.expire(lane))
        lanes.put(lane, Record("pending"), [("pending", b"frame")], timeout=60.0)
        client.config_set("maxmemory", 1)
        yield app
        Stargate.of(app).close()


def test_dead_letters_leave_a_full_redis(run: Run, tmp_path: Path) -> None:
    """What an operator did is in the log then."""
    archive = tmp_path / "dead.jsonl"
    done = run("dead", "archive", "c0", "--to", str(archive), "--yes")
    assert done.code == 0, done.err
    assert len(archive.read_bytes().splitlines()) == 1
    assert run("dead", "discard", "--all", "--yes").code == 0
    assert run("dead", "list").out.strip() == "No dead letter matches."


def test_a_context_is_cancelled(run: Run) -> None:
    """Its message is not sent any more."""
    done = run("cancel", "pending", "--yes")
    assert done.code == 0, done.err


def test_a_topic_is_paused_and_resumed(run: Run, topic: str) -> None:
    """What cannot be noted in Redis is in the log."""
    for verb, owner in (("pause", f"paused by {operator()}"), ("resume", None)):
        assert run(verb, topic, "--yes").code == 0
        [lane] = run("lanes", "--json").lines
        assert lane["owner"] == owner


def test_what_needs_room_says_so(run: Run) -> None:
    """And what to do."""
    refused = run("dead", "replay", "c0", "--yes")
    assert refused.code == 1
    assert "Redis is full" in refused.err and "dead discard" in refused.err
    assert ".;" not in refused.err


def test_an_archive_that_failed_leaves_no_file(
    run: Run, app: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try may name it again."""
    archive = tmp_path / "dead.jsonl"
    letters = type(Stargate.of(app).dead_letters)

    def fail(*_: object) -> Iterator[object]:
        raise redis.exceptions.ConnectionError("Redis went away")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(letters, "archive", fail)
        assert run("dead", "archive", "c0", "--to", str(archive), "--yes").code == 1
    assert not archive.exists()
    assert run("dead", "archive", "c0", "--to", str(archive), "--yes").code == 0
