"""Lanes behind Sentinel: the master that the sentinels name, also after a failover."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from celery_stargate import ConfigurationError, Stargate, StoreUnavailable
from celery_stargate.lanes.connections import UNAVAILABLE, Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.target import Target, parse_target
from celery_stargate.support.bound import bounded
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put
from tests.integration.rig import elapsed, wait_for
from tests.servers import sentinel as sentinel_module
from tests.servers.fixtures import require
from tests.servers.sentinel import MASTER_NAME, SentinelServers

#: Each character of it means something in a URL.
PASSWORD = "p@:/%#?w"
SENTINELS = "s@:/%#?w"
USER, USERS = "lanes", "other@:/%#?w"
OPTIONS = {"master_name": MASTER_NAME, "sentinel_kwargs": {"password": SENTINELS}}


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[SentinelServers]:
    """Three data servers and three sentinels, which have passwords of their own."""
    require(sentinel_module.missing_reason())
    with SentinelServers(
        tmp_path, password=PASSWORD, sentinel_password=SENTINELS, down_after=1.0
    ) as servers:
        servers.add_user(USER, USERS, "~*", "&*", "+@all")
        yield servers


def target(servers: SentinelServers, **options: Any) -> Target:
    """Return the target of the servers' URL."""
    return parse_target(servers.url).changed({**OPTIONS, **options})


def test_callers_and_owners_outlive_the_death_of_the_master(
    servers: SentinelServers, prefix: str, lane: Lane
) -> None:
    """A caller with enough time gets through; an owner's call does, once repeated."""
    connections = Connections(target(servers))
    lanes = Outbox(connections, prefix)
    put(lanes, lane, "before")

    async def own() -> int:
        client, blocking = connections.asyncio(), connections.blocking()
        await client.set(f"{prefix}:a", 1)
        await blocking.ping()
        servers.master.kill()
        found, end = 0, time.monotonic() + 30
        while time.monotonic() < end:
            try:
                await blocking.xread({f"{prefix}:l": "0"}, block=10)
                await client.set(f"{prefix}:b", 2)
                found = int(await client.get(f"{prefix}:b") or 0)
                break
            except UNAVAILABLE:
                continue
        await client.aclose()
        await blocking.aclose()
        return found

    assert asyncio.run(own()) == 2
    with elapsed() as seconds, bounded(20.0):
        put(lanes, lane, "after")
    assert seconds() < 20
    assert lanes.backlog(lane) >= 1
    lanes.close()


def test_callers_and_owners_leave_a_master_that_is_cut_off(
    servers: SentinelServers, prefix: str, lane: Lane
) -> None:
    """It still answers them, and nothing breaks: only the sentinels know that another is master."""
    connections = Connections(target(servers, username=USER, password=USERS))
    lanes = Outbox(connections, prefix)
    put(lanes, lane, "before")
    old = servers.master
    servers.isolate(old, user=USER, password=USERS)
    put(lanes, lane, "to the old one")
    new = servers.failover()
    log = lane.key(prefix, "log")
    with redis.Redis(port=new.port, username=USER, password=USERS) as client:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            put(lanes, lane, f"at {time.monotonic()}")
            labels = [fields[b"l"] for _, fields in client.xrange(log)]
            if any(label.startswith(b"at ") for label in labels):
                break
        else:
            pytest.fail("callers stayed with the old master")

    async def own() -> None:
        client = connections.asyncio()
        await client.set(f"{prefix}:a", 1)
        await client.aclose()

    asyncio.run(own())
    with redis.Redis(port=new.port, username=USER, password=USERS) as client:
        assert client.get(f"{prefix}:a") == b"1"
    lanes.close()


def test_an_owner_leaves_a_master_that_is_cut_off(servers: SentinelServers, prefix: str) -> None:
    """Though its connections, among them one that is always in use, stay open."""
    connections = Connections(target(servers, username=USER, password=USERS))

    async def own() -> bool:
        client, blocking = connections.asyncio(), connections.blocking()
        await client.set(f"{prefix}:a", 1)
        servers.isolate(servers.master, user=USER, password=USERS)
        await asyncio.to_thread(servers.failover)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            read = asyncio.ensure_future(blocking.xread({f"{prefix}:l": "0-0"}, block=500))
            await client.set(f"{prefix}:b", 2)
            # On a slow machine the sentinels may choose again.
            master = await asyncio.to_thread(lambda: servers.master)
            with redis.Redis(port=master.port, username=USER, password=USERS) as plain:
                if plain.get(f"{prefix}:b") == b"2" and plain.role()[0] == b"master":
                    plain.xadd(f"{prefix}:l", {"l": "x"})
            if await read:
                break
        await client.aclose()
        await blocking.aclose()
        return time.monotonic() < end

    assert asyncio.run(own())


def test_with_min_replicas_to_write_a_master_that_is_cut_off_takes_nothing(
    tmp_path: Path, prefix: str, lane: Lane
) -> None:
    """So a message that was recorded is not lost by the failover."""
    require(sentinel_module.missing_reason())
    config = {"min-replicas-to-write": "1", "min-replicas-max-lag": "1"}
    with SentinelServers(
        tmp_path, password=PASSWORD, sentinel_password=SENTINELS, config=config
    ) as servers:
        servers.add_user(USER, USERS, "~*", "&*", "+@all")
        lanes = Outbox(Connections(target(servers, username=USER, password=USERS)), prefix)
        wait_for(lambda: _recorded(lanes, lane, "first"))
        old = servers.master
        servers.isolate(old, user=USER, password=USERS)
        cut_off = time.monotonic()
        #: When each message that was recorded was begun, in seconds after the master was cut off.
        recorded: dict[str, float] = {}
        for number in itertools.count():
            begun = time.monotonic() - cut_off
            assert begun < 40, "no other master took a message"
            if _recorded(lanes, lane, f"m{number}"):
                recorded[f"m{number}"] = begun
                if servers.master is not old:
                    break
        with redis.Redis(port=servers.master.port, username=USER, password=USERS) as client:
            found = {fields[b"l"].decode() for _, fields in client.xrange(lane.key(prefix, "log"))}
        # Redis counts its replicas once a second, and one may lag by another second; messages of
        # these two seconds may be lost, later ones may not.
        assert {name for name, begun in recorded.items() if begun > 3.0} <= found
        assert max(recorded, key=recorded.__getitem__) in found
        lanes.close()


def _recorded(lanes: Outbox, lane: Lane, context: str) -> bool:
    try:
        with bounded(1.0):
            put(lanes, lane, context)
    except StoreUnavailable:
        return False
    return True


def test_what_the_servers_refuse_is_told_in_bounded_time(
    servers: SentinelServers, prefix: str
) -> None:
    """A name that no sentinel knows, wrong passwords, and fewer sentinels than are asked for."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"master_name": "another"}, "another.*check master_name in stargate_redis_options"),
        ({"sentinel_kwargs": {"password": "wrong"}}, "."),
        ({"min_other_sentinels": 5}, "No master found"),
        ({"password": "wrong"}, "invalid username-password|WRONGPASS|AUTH"),
    ]
    for options, words in cases:
        lanes = Outbox(Connections(target(servers, **options)), prefix)
        with (
            elapsed() as seconds,
            pytest.raises(StoreUnavailable, match=f"(?s){words}") as caught,
            # Long enough for a busy machine to answer.
            bounded(3.0),
        ):
            lanes.registry.survey()
        assert seconds() < 9
        for secret in (PASSWORD, SENTINELS, "wrong"):
            assert secret not in str(caught.value)
        lanes.close()


@pytest.mark.parametrize("dead", [0, 1])
def test_all_sentinels_are_asked(servers: SentinelServers, prefix: str, dead: int) -> None:
    """One that is gone is passed over."""
    servers.kill_sentinel(dead)
    lanes = Outbox(Connections(target(servers)), prefix)
    assert lanes.registry.survey()[0] == 0
    lanes.close()


@pytest.mark.smoke
def test_an_app_goes_on_after_a_failover(
    make_app: MakeApp, local: LocalPulsar, servers: SentinelServers
) -> None:
    """Calls of the same process, which owns the lane, too."""
    app = make_app(local.url, redis_url=servers.url, redis_options=OPTIONS, lease=1.0)
    stargate = Stargate.of(app)
    assert stargate.produce("before", timeout=20).status == "stored"
    servers.master.kill()
    with elapsed() as seconds:
        while True:
            try:
                assert stargate.produce("after", timeout=20).status == "stored"
                break
            except StoreUnavailable:
                assert seconds() < 60
    stargate.close()


def test_the_broker_and_the_backend_are_behind_sentinel_too(
    make_app: MakeApp, servers: SentinelServers
) -> None:
    """Nothing of ours is set: the lanes are where Celery's results are."""
    conf = {
        "broker_url": servers.url,
        "result_backend": servers.url,
        "broker_transport_options": OPTIONS,
        "result_backend_transport_options": OPTIONS,
    }
    app = make_app("ws://127.0.0.1:1", redis_url=None, conf=conf)
    stargate = Stargate.of(app)
    assert stargate.runtime.redis.sentinels == tuple(
        ("127.0.0.1", port) for port in servers.sentinel_ports
    )
    app.tasks["celery_stargate.produce"].delay("x")
    with redis.Redis(port=servers.master.port, password=PASSWORD) as client:
        assert client.keys(f"{stargate.settings.prefix}:*:log")


def test_a_sentinel_url_without_a_master_is_refused_when_the_settings_are_read(
    make_app: MakeApp,
) -> None:
    """And not by the first message."""
    app = make_app("ws://127.0.0.1:1", redis_url="sentinel://a:1;sentinel://b:2")
    with pytest.raises(ConfigurationError, match=r'stargate_redis_options = \{"master_name"'):
        _ = Stargate.of(app).settings


class SlowToStart(SentinelServers):
    """Servers whose master does not answer for five seconds while all of them start."""

    def _complete(self) -> bool:
        if not self.slow:
            self.slow = True
            with redis.Redis(port=self.servers[0].port) as client:
                client.client_pause(5000)
        return super()._complete()

    slow = False


def test_a_master_that_is_slow_while_all_start_stays_the_master(tmp_path: Path) -> None:
    """Only later do the sentinels replace one that does not answer for ``down_after``."""
    require(sentinel_module.missing_reason())
    with SlowToStart(tmp_path, down_after=1.0) as servers:
        assert servers.master is servers.servers[0]
        servers.servers[0].kill()
        assert servers.failover() is not servers.servers[0]
