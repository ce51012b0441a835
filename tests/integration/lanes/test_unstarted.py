"""Callbacks that have not started, in a real Redis."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from redis.exceptions import ResponseError

from celery_stargate import StoreUnavailable
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.lanes.scripts import Scripts
from celery_stargate.lanes.unstarted import Overdue, UnstartedCallbacks
from tests.servers.fixtures import ServerAddress


def callbacks(server: ServerAddress, prefix: str) -> UnstartedCallbacks:
    """The callbacks of one prefix."""
    return UnstartedCallbacks(Connections(server.url), prefix)


def test_one_is_kept_until_it_has_started(redis_server: ServerAddress, prefix: str) -> None:
    """It is found when it is overdue, and not again at once; another one is not found yet."""
    kept = callbacks(redis_server, prefix)
    kept.keep({"late": b"body\n\xff"}, 0.0)
    kept.keep({"early": b"x", "started": b"y"}, 60.0)
    kept.started("started")
    assert kept.overdue(60.0, 600.0) == Overdue({"late": b"body\n\xff"}, [])
    assert kept.overdue(60.0, 600.0) == Overdue({}, [])
    kept.started("late")
    kept.started("early")
    kept.started("unknown")
    with redis.Redis.from_url(redis_server.url) as client:
        assert list(client.scan_iter(f"{prefix}*")) == []


def test_it_is_kept_from_now_on(redis_server: ServerAddress, prefix: str) -> None:
    """By Redis' clock: from then it is counted how long it lasted, and when it comes again."""
    kept = callbacks(redis_server, prefix)
    when, bodies = map(RegistryKeys(prefix).key, ("unstarted", "unstarted-callbacks"))
    with redis.Redis.from_url(redis_server.url) as client:

        def now() -> int:
            seconds, micros = client.time()
            return int(seconds) * 1000 + int(micros) // 1000

        before = now()
        kept.keep({"a": b"body"}, 60.0)
        since, _, body = (client.hget(bodies, "a") or b"").partition(b"\n")
        assert before <= int(since) <= now()
        assert client.zscore(when, "a") == int(since) + 60_000
        assert body == b"body"


def test_each_wait_is_as_long_as_those_before(redis_server: ServerAddress, prefix: str) -> None:
    """A long queue does not fill with copies; and there is an end."""
    kept = callbacks(redis_server, prefix)
    when, bodies = map(RegistryKeys(prefix).key, ("unstarted", "unstarted-callbacks"))
    kept.keep({"a": b"body"}, 0.0)
    with redis.Redis.from_url(redis_server.url) as client:
        now = int(client.time()[0]) * 1000
        client.hset(bodies, "a", b"%d\nbody" % (now - 100_000))
        assert kept.overdue(1.0, 600.0).again == {"a": b"body"}
        wait = float(client.zscore(when, "a") or 0) - now
        assert 100_000 <= wait < 110_000
        client.zadd(when, {"a": 0, "junk": 0})
        assert sorted(kept.overdue(1.0, 50.0).given_up) == ["a", "junk"]
        assert not client.exists(when, bodies)


def test_keys_of_a_wrong_type_begin_anew(redis_server: ServerAddress, prefix: str) -> None:
    """Callbacks are published all the same."""
    kept = callbacks(redis_server, prefix)
    with redis.Redis.from_url(redis_server.url) as client:
        for part in ("unstarted", "unstarted-callbacks"):
            key = RegistryKeys(prefix).key(part)
            client.delete(key)
            client.set(key, "x")
            kept.keep({"a": b"body"}, 0.0)
            assert kept.overdue(60.0, 600.0).again == {"a": b"body"}


def test_what_redis_refuses_otherwise(
    redis_server: ServerAddress, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is told, and nothing is deleted; a key that another process healed first is no error."""
    kept = callbacks(redis_server, prefix)
    kept.keep({"a": b"body"}, 0.0)
    run = Scripts.run
    asked: list[str] = []

    def refuse(self: Scripts, name: str, *given: Any) -> Any:
        asked.append(name)
        if name == "registry/heal":
            return 0
        if asked.count(name) == 1:
            raise ResponseError(error)
        return run(self, name, *given)

    monkeypatch.setattr(Scripts, "run", refuse)
    error = "NOPERM"
    with pytest.raises(StoreUnavailable, match="NOPERM"):
        kept.overdue(60.0, 600.0)
    asked.clear()
    error = "WRONGTYPE"
    assert kept.overdue(60.0, 600.0).again == {"a": b"body"}
    assert "registry/heal" in asked
