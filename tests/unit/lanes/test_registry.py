"""``lanes/registry.py``: names of lanes and of processes, as Redis lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ResponseError

from celery_stargate import StoreUnavailable
from celery_stargate.lanes import registry
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry import CallerRegistry, LaneNames, Registry, RegistryKeys
from celery_stargate.lanes.scripts import registry_script
from celery_stargate.model.buckets import in_buckets
from celery_stargate.model.topic import Topic
from tests.unit.helpers import TOPIC


def test_members_that_are_no_lanes(caplog: pytest.LogCaptureFixture) -> None:
    """They are ignored, and logged once in sum, however many and however often."""
    junk = [f"junk{number}".encode() for number in range(2000)]
    junk += [b"\xff#0", b"contexts#0", b"contexts#1", b"", b"#0", b"x" * 100_000]
    good = f"{TOPIC}#3".encode()
    names = LaneNames()
    for _ in range(3):
        assert names.read([*junk, good]) == [Lane(TOPIC, 3)]
    (record,) = caplog.records
    assert "2006 members" in record.getMessage()
    assert len(record.getMessage()) < 300


def test_names_that_were_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not parsed again: the same ones come every few seconds."""
    members = [f"{TOPIC}#{index}".encode() for index in range(5)] + [b"never a lane"]
    names = LaneNames()
    before = names.read(members)
    monkeypatch.setattr(Topic, "parse", None)
    assert names.read(members) == before
    assert len(before) == 5


class _Cluster:
    """A Redis Cluster of two buckets, the first of which is down."""

    def __init__(self, prefix: str, members: dict[str, list[bytes]]) -> None:
        self.up = Registry(cast("Any", self), prefix).all_keys[1]
        self.removed: list[tuple[str, Any]] = []
        self._members = {self.up.key(kind): names for kind, names in members.items()}

    async def zrange(self, key: str, start: int, end: int) -> list[bytes]:
        """The members of a sorted set."""
        if key not in self._members:
            raise LostConnection("this shard is down")
        return self._members[key]

    def register_script(self, text: str) -> Any:
        """A script that notes what it is told."""

        async def run(keys: list[str], args: list[Any]) -> list[Any]:
            if keys[0] not in self._members:
                raise LostConnection("this shard is down")
            self.removed.append((keys[0], args[0]))
            return [0]

        return run


def test_ended_processes_are_removed_while_a_shard_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever it is: a worker that starts then would own no lane."""
    monkeypatch.setattr(registry, "has_ended", lambda name: name == "dead")
    prefix = in_buckets("p", 2)
    cluster = _Cluster(prefix, {"workers": [b"alive", b"dead"], "callers": []})
    asyncio.run(Registry(cast("Any", cluster), prefix).remove_ended())
    assert cluster.removed == [(cluster.up.key("workers"), b"dead")]


def test_every_shard_is_down() -> None:
    """That is an error; one that Redis refuses is one, whatever the other shards answer."""
    prefix = in_buckets("p", 2)
    cluster = _Cluster(prefix, {})  # it knows no key
    with pytest.raises(LostConnection, match="down"):
        asyncio.run(Registry(cast("Any", cluster), prefix).leave("one"))
    refusing = _Refusing(ResponseError("NOPERM"))
    with pytest.raises(ResponseError, match="NOPERM"):
        asyncio.run(Registry(cast("Any", refusing), prefix).leave("one"))


class _Refusing:
    """A Redis that refuses the first run of each script but the one that heals.

    Arguments:
        error: what it answers.
        healed: what the script that heals answers: how many keys it deleted.
    """

    def __init__(self, error: Exception, healed: int = 0) -> None:
        self.error, self.healed = error, healed
        self.ran: list[str] = []

    def register_script(self, text: str) -> Any:
        """A script that notes that it ran."""
        kind = "heal" if text == registry_script("heal") else "other"

        async def run(keys: list[str], args: list[Any]) -> Any:
            self.ran.append(kind)
            if kind == "heal":
                return self.healed
            if self.ran.count(kind) == 1:
                raise self.error
            return [1]

        return run


@pytest.mark.parametrize("healed", [0, 1])
def test_a_key_of_a_wrong_type_is_healed_once(
    healed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """And only the process that did it says so."""
    refusing = _Refusing(ResponseError("WRONGTYPE"), healed)
    assert asyncio.run(Registry(cast("Any", refusing), "p").has_workers()) is True
    assert refusing.ran == ["other", "heal", "other"]
    assert len(caplog.records) == healed


def test_another_error_heals_nothing() -> None:
    """Keys are deleted for a wrong type alone."""
    refusing = _Refusing(ResponseError("NOPERM"))
    with pytest.raises(ResponseError, match="NOPERM"):
        asyncio.run(Registry(cast("Any", refusing), "p").has_workers())
    assert refusing.ran == ["other"]


def test_a_new_worker_is_told_to_a_bucket_that_answers() -> None:
    """To one; where none answers, the owners find the worker by their next heartbeats."""
    prefix = in_buckets("p", 3)
    told: list[str] = []

    class Redis:
        async def xadd(self, key: str, fields: Any, **_: Any) -> None:
            told.append(key)

    registry = Registry(cast("Any", Redis()), prefix)
    registry.silent = frozenset({0})
    asyncio.run(registry.announce_worker("one"))
    assert told == [registry.all_keys[1].key("events")]
    registry.silent = frozenset({0, 1, 2})
    asyncio.run(registry.announce_worker("one"))
    assert len(told) == 1


class _Shards:
    """Stands where the scripts of a process's threads do: the shards of some buckets are down."""

    def __init__(self, prefix: str, down: set[int]) -> None:
        self.down = down
        self.asked: list[int] = []
        self.left: list[str] = []
        self._buckets = {keys.key("lanes"): keys.bucket for keys in RegistryKeys.of_all(prefix)}

    def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run one script."""
        bucket = self._buckets[keys[1]]
        self.asked.append(bucket)
        if bucket in self.down:
            raise LostConnection("this shard is down")
        self.left.append(arguments[0])
        return [2]

    def run_many(self, name: str, runs: Any) -> list[Any]:
        """Run each."""
        return [self.run(name, *each) for each in runs]


def _caller(down: set[int], buckets: int = 3) -> tuple[CallerRegistry, _Shards]:
    """The registry of a Cluster, or of a server, as a caller uses it."""
    prefix = in_buckets("p", buckets) if buckets > 1 else "p"
    shards = _Shards(prefix, down)

    class Client:
        def zrange(self, key: str, start: int, end: int) -> list[bytes]:
            return [b"dead"] if key.endswith("workers") else []

    connections: Any = SimpleNamespace(sync=Client)
    caller = CallerRegistry(connections, prefix)
    caller._scripts = cast("Any", shards)  # noqa: SLF001
    return caller, shards


def test_owners_are_counted_while_a_shard_is_down() -> None:
    """Any shard can tell; the one that answered is asked first from then on."""
    caller, shards = _caller({0, 1})
    assert caller.owners() == 4
    assert shards.asked == [0, 1, 2, 2]
    assert caller.owners() == 4
    assert shards.asked[4:] == [2, 2]
    shards.down = {0, 1, 2}
    with pytest.raises(StoreUnavailable, match="this shard is down"):
        caller.owners()


def test_a_caller_removes_ended_processes_while_a_shard_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From each shard that answers; in the other the name ends by itself."""
    monkeypatch.setattr(registry, "has_ended", lambda name: name == "dead")
    caller, shards = _caller({1})
    assert caller.remove_ended() is True
    assert shards.left == ["dead", "dead"]


def test_a_caller_cannot_remove_an_ended_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one server that is an error: it would wait for a worker that is dead."""
    monkeypatch.setattr(registry, "has_ended", lambda name: name == "dead")
    caller, _ = _caller({0}, 1)
    with pytest.raises(StoreUnavailable):
        caller.remove_ended()
