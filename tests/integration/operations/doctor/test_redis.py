"""Mistakes in Redis, each on a server of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from celery_stargate.operations.doctor.diagnosis import Diagnosis
from tests.integration.conftest import MakeApp
from tests.integration.operations.doctor.between import Between, ahead, as_old, slow
from tests.integration.operations.doctor.conftest import Diagnose
from tests.integration.rig import wait_for
from tests.servers.fixtures import ServerAddress, require
from tests.servers.ports import free_ports
from tests.servers.process import ServerProcess
from tests.servers.redis import RedisServer, missing_reason


@contextmanager
def server(path: Path, **config: str) -> Iterator[RedisServer]:
    """A Redis with some directives."""
    require(missing_reason())
    directives = {name.replace("_", "-"): value for name, value in config.items()}
    with RedisServer(path, config={"appendonly": "yes", **directives}) as running:
        yield running


@pytest.mark.parametrize(
    ("config", "check", "words"),
    [
        (
            {"maxmemory_policy": "allkeys-lru", "maxmemory": "200mb"},
            "redis-eviction",
            "throws pending messages away",
        ),
        ({"maxmemory_policy": "volatile-lru"}, "redis-eviction", "not set yet"),
        ({"appendonly": "no"}, "redis-persistence", "nothing on disk"),
        ({"appendonly": "no", "save": "3600 1"}, "redis-persistence", "snapshots only"),
        ({"appendfsync": "no"}, "redis-persistence", "appendfsync is no"),
    ],
)
@pytest.mark.plants("redis-eviction", "redis-persistence")
def test_finds_a_wrong_directive(
    tmp_path: Path,
    make_app: MakeApp,
    diagnose: Diagnose,
    config: dict[str, str],
    check: str,
    words: str,
) -> None:
    with server(tmp_path, **config) as running:
        found = diagnose(make_app("ws://127.0.0.1:1", redis_url=running.url))
    assert words in f"{found[check].found} {found[check].why}"
    assert [name for name in found if name.startswith("redis-")] == [check]


def test_a_sound_redis_has_no_finding(
    tmp_path: Path, make_app: MakeApp, diagnose: Diagnose
) -> None:
    with server(tmp_path) as running:
        found = diagnose(make_app("ws://127.0.0.1:1", redis_url=running.url))
        with redis.Redis.from_url(running.url) as client:
            assert client.keys("*") == []
    assert [name for name in found if name.startswith("redis-")] == []


@pytest.mark.plants("redis-memory")
def test_finds_that_redis_is_nearly_full(
    tmp_path: Path, make_app: MakeApp, diagnose: Diagnose
) -> None:
    with server(tmp_path) as running:
        with redis.Redis.from_url(running.url) as client:
            # The server makes it; a long command would need memory for itself.
            client.setrange("ballast", 20 << 20, "x")
            used = client.info("memory")["used_memory"]
            client.config_set("maxmemory", int(used / 0.9))
        found = diagnose(make_app("ws://127.0.0.1:1", redis_url=running.url))
    assert "of its maxmemory" in found["redis-memory"].found


@pytest.mark.plants("redis-disk")
def test_finds_that_redis_cannot_write_to_its_disk(
    tmp_path: Path, make_app: MakeApp, diagnose: Diagnose
) -> None:
    # Not even root can put a file in the place of a folder that holds something.
    (tmp_path / "dump" / "full").mkdir(parents=True)
    with (
        server(tmp_path, dbfilename="dump") as running,
        redis.Redis.from_url(running.url) as client,
    ):
        untyped: Any = client
        untyped.bgsave()
        wait_for(lambda: untyped.info("persistence")["rdb_last_bgsave_status"] == "err")
        found = diagnose(make_app("ws://127.0.0.1:1", redis_url=running.url))
    assert "rdb_last_bgsave_status is err" in found["redis-disk"].found
    assert "free space" in found["redis-disk"].mend


@pytest.mark.plants("redis-replication")
def test_finds_that_replicas_may_lag(tmp_path: Path, make_app: MakeApp, diagnose: Diagnose) -> None:
    with server(tmp_path / "master") as master:
        directives = {"replicaof": f"127.0.0.1 {master.port}"}
        with (
            server(tmp_path / "replica", **directives),
            redis.Redis.from_url(master.url) as client,
        ):
            untyped: Any = client
            wait_for(lambda: untyped.info("replication")["connected_slaves"] == 1)
            found = diagnose(make_app("ws://127.0.0.1:1", redis_url=master.url))
    assert "1 replicas" in found["redis-replication"].found


@pytest.mark.plants("redis-topology")
def test_finds_a_replica(tmp_path: Path, make_app: MakeApp, diagnose: Diagnose) -> None:
    with server(tmp_path / "master") as master:
        directives = {"replicaof": f"127.0.0.1 {master.port}"}
        with server(tmp_path / "replica", **directives) as replica:
            found = diagnose(make_app("ws://127.0.0.1:1", redis_url=replica.url))
    assert f"127.0.0.1:{master.port}" in found["redis-topology"].mend


@pytest.mark.plants("redis-topology")
def test_finds_a_sentinel(tmp_path: Path, make_app: MakeApp, diagnose: Diagnose) -> None:
    require(missing_reason())
    [port] = free_ports(1)
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\n")
    command = ["redis-server", str(config), "--sentinel"]
    sentinel = ServerProcess("sentinel", command, log_path=tmp_path / "log")
    url = f"redis://127.0.0.1:{port}/0"

    def ready() -> bool:
        try:
            with redis.Redis.from_url(url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    sentinel.start(ready, timeout=20)
    try:
        found = diagnose(make_app("ws://127.0.0.1:1", redis_url=url))
    finally:
        sentinel.kill()
    assert "Sentinel" in found["redis-topology"].found


@pytest.mark.parametrize("denied", ["xadd", "eval", "publish"])
@pytest.mark.plants("redis-acl")
def test_finds_what_the_user_may_not_do(
    tmp_path: Path, make_app: MakeApp, diagnose: Diagnose, denied: str
) -> None:
    with server(tmp_path) as running:
        with redis.Redis.from_url(running.url) as client:
            client.execute_command(
                "ACL", "SETUSER", "shop", "on", ">s3cr3t", "~*", "&*", "+@all", f"-{denied}"
            )
        url = f"redis://shop:s3cr3t@127.0.0.1:{running.port}/0"
        found = diagnose(make_app("ws://127.0.0.1:1", redis_url=url))
    assert found["redis-acl"].found == f"the user may not run {denied.upper()}"


@pytest.mark.plants("redis-acl", "redis-connection")
def test_finds_that_the_user_may_use_other_keys_only(
    tmp_path: Path, make_app: MakeApp, diagnose: Diagnose
) -> None:
    with server(tmp_path) as running:
        with redis.Redis.from_url(running.url) as client:
            client.execute_command(
                "ACL", "SETUSER", "shop", "on", ">s3cr3t", "~other:*", "&*", "+@all"
            )
        url = f"redis://shop:s3cr3t@127.0.0.1:{running.port}/0"
        found = diagnose(make_app("ws://127.0.0.1:1", redis_url=url))
    assert "XADD" in found["redis-acl"].found
    # It cannot look at the lanes, either.
    assert "redis-connection" in found


@pytest.mark.plants("redis-connection")
def test_finds_that_redis_is_away_or_the_password_wrong(
    make_app: MakeApp, diagnose: Diagnose, redis_server: ServerAddress, tmp_path: Path
) -> None:
    app = make_app("ws://127.0.0.1:1", redis_url="redis://:s3cr3t@127.0.0.1:1/0")
    told = {each.check: each for each in Diagnosis(app).findings()}
    assert "127.0.0.1:1" in told["redis-connection"].found
    assert "redis-topology" not in told  # nothing is known of it
    with server(tmp_path) as running:
        with redis.Redis.from_url(running.url) as client:
            client.config_set("requirepass", "right")
        url = f"redis://:s3cr3t@127.0.0.1:{running.port}/0"
        found = diagnose(make_app("ws://127.0.0.1:1", redis_url=url))
    assert "check those in the URL" in found["redis-connection"].mend


@pytest.mark.parametrize(
    ("answered", "check", "words"),
    [
        # No older Redis is at hand: the real one's answers are changed on their way.
        (as_old, "redis-version", "Redis is version 6.0"),
        (ahead, "redis-clock", "s ahead of this host's"),
        (slow, "redis-latency", "a PING takes"),
    ],
)
@pytest.mark.plants("redis-version", "redis-clock", "redis-latency")
def test_finds_what_lies_between(
    tmp_path: Path,
    make_app: MakeApp,
    diagnose: Diagnose,
    answered: Callable[[bytes], bytes],
    check: str,
    words: str,
) -> None:
    with server(tmp_path) as running, Between(running.port, answered=answered) as proxy:
        found = diagnose(make_app("ws://127.0.0.1:1", redis_url=proxy.url(running.url)))
    assert words in found[check].found
    # A busy machine may be slow by itself.
    assert [name for name in found if name.startswith("redis-") and name != "redis-latency"] == (
        [] if check == "redis-latency" else [check]
    )
