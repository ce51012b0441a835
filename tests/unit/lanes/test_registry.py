"""``lanes/registry.py``: members of the list of lanes that are no lanes."""

from __future__ import annotations

import pytest

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry import LaneNames
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
