"""``lanes/registry.py``: names of lanes and of processes, as Redis lists them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as LostConnection

from celery_stargate.lanes import registry
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry import LaneNames, Registry
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
