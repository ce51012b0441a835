"""The commands with 100,000 pending contexts and 2,000 lanes: fast, and Redis is never blocked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from celery_stargate import Stargate
from celery_stargate.cli.output import Output
from celery_stargate.lanes.lane import Lane
from tests.integration.cli.conftest import Run
from tests.integration.cli.slow_log import never_blocked
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put
from tests.integration.operations.test_contexts import fill
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer, missing_reason

_CONTEXTS, _LANES = 100_000, 2_000
#: What reads without a bound.
_UNBOUNDED = {"keys", "hgetall", "hkeys", "hvals", "smembers", "lrange", "zrange"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis with one large lane and many small ones."""
    require(missing_reason())
    with RedisServer(tmp_path_factory.mktemp("large")) as running:
        with redis.Redis.from_url(running.url) as client:
            fill(client, Lane("persistent://public/default/large"), "large", _CONTEXTS)
            names = {f"persistent://public/default/small#{n}": time.time() for n in range(_LANES)}
            client.zadd("large:{registry}:lanes", names)
        yield running


@pytest.fixture
def app(make_app: MakeApp, server: RedisServer) -> Celery:
    """An app with these lanes."""
    return make_app("ws://127.0.0.1:1", redis_url=server.url, prefix="large")


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--interval", "0"),
        ("lanes", "--topic", "large"),
        ("lanes",),
        ("pending",),
        ("pending", "--older-than", "1h"),
        ("pending", "--limit", "0", "--json"),
        ("show", "c050000"),
        ("show", "nothere"),
        ("workers",),
        ("top", "--once"),
        ("doctor",),
        ("cancel", "--all", "--dry-run"),
        ("exporter", "--once"),
    ],
    ids=" ".join,
)
def test_no_command_blocks_redis(
    run: Run, app: Celery, server: RedisServer, arguments: tuple[str, ...]
) -> None:
    with redis.Redis.from_url(server.url) as client, never_blocked(client) as stats:
        run(*arguments)
    # Only the head of the deadlines is read by ``zrange``.
    assert _UNBOUNDED & stats.keys() <= {"zrange"}


def test_the_first_row_of_pending_is_there_within_a_second(app: Celery) -> None:
    from celery_stargate.operations.contexts import ContextInspector
    from celery_stargate.operations.reading import LaneReader

    stargate = Stargate.of(app)
    reader = LaneReader(stargate.runtime.connections.sync(), "large", lambda lane, waits: 60.0)
    began = time.perf_counter()
    next(ContextInspector(reader).pending())
    assert time.perf_counter() - began < 1.0


class _SeenError(Exception):
    """The first line was printed."""


def test_a_dry_run_names_the_first_at_once(
    run: Run, app: Celery, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not look for all of them before."""

    def line(output: Output, value: Any, text: str) -> None:
        raise _SeenError(text)

    monkeypatch.setattr(Output, "line", line)
    with redis.Redis.from_url(server.url) as client:
        untyped: Any = client
        untyped.config_resetstat()
        with pytest.raises(_SeenError, match="c00"):
            run("cancel", "--all", "--dry-run")
        # The records of one step of 200.
        assert untyped.info("commandstats")["cmdstat_hmget"]["calls"] == 1


def test_a_cancelled_context_of_many_is_gone(run: Run, app: Celery, tmp_path: Path) -> None:
    put(Stargate.of(app).lanes, Lane("persistent://public/default/large"), "one-more")
    assert run("cancel", "one-more", "--yes").code == 0
    assert run("show", "one-more").code == 1
