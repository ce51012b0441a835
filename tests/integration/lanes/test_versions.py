"""Records of two versions beside each other, as during a rolling upgrade, and on the way back."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from celery_stargate import Message
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.scripts import lane_keys, lane_script
from celery_stargate.model.entry import label_of
from celery_stargate.model.frame import encode_frame, text_frame
from tests.integration.lanes.rig import Owner, receipt

LARGE, SMALL = b"\x00\n\xff" * 1000, b"small"


def frame(payload: bytes, label: str) -> bytes:
    """A message's frame, as a caller of this version gives it."""
    return encode_frame(Message(payload=payload), label, 1 << 20)


def older(name: str) -> str:
    """A script as it was when record version 1 was the only one."""
    text = lane_script(name)
    for new, old in (("'^[12] (", "'^1 ("), ("'0') <= 2 then", "'0') <= 1 then")):
        assert new in text
        text = text.replace(new, old)
    return text


@pytest.fixture
def filled(lanes: Outbox, lane: Lane) -> Lane:
    """A lane with a small message, a large one, and a list of both; numbers 1 to 4."""
    lanes.put(lane, Record("small"), [("", frame(SMALL, "small"))], timeout=60.0)
    lanes.put_many([(lane, Record("large"), frame(LARGE, "large"))], timeout=60.0)
    labels = [label_of("list", place) for place in (0, 1)]
    parts = [("", frame(each, label)) for each, label in zip((SMALL, LARGE), labels, strict=True)]
    lanes.put(lane, Record("list", is_list=True), parts, timeout=60.0)
    return lane


def test_only_a_record_of_bytes_is_of_the_newer_version(
    filled: Lane, client: redis.Redis, prefix: str, owner: Owner
) -> None:
    """So an older worker sends all others. The owner gives Pulsar the text of each."""
    records: Any = client.hgetall(filled.key(prefix, "contexts"))
    assert {name: record[:2] for name, record in records.items()} == {
        b"small": b"1 ",
        b"large": b"2 ",
        b"list": b"2 ",
    }
    entries = owner.do(owner.store.read(0, 10, 1 << 20, mark=True))
    assert [(each.context, each.place) for each in entries] == [
        ("small", -1),
        ("large", -1),
        ("list", 0),
        ("list", 1),
    ]
    messages = [Message(payload=each) for each in (SMALL, LARGE, SMALL, LARGE)]
    for entry, message in zip(entries, messages, strict=True):
        assert text_frame(entry.frame) == text_frame(encode_frame(message, entry.label, 1 << 20))
    settled = owner.settle([("large", -1, receipt("large"))], "t").settled
    assert [each.record.context for each in settled] == ["large"]


def test_an_older_worker_loses_nothing(
    filled: Lane, lanes: Outbox, client: redis.Redis, prefix: str, owner: Owner
) -> None:
    """It sends what it can read up to there, and neither settles, expires nor moves the rest."""
    keys = lane_keys(prefix, filled, "old")
    lease: Any = client.get(filled.key(prefix, "lease"))
    reply: Any = client.eval(older("read"), len(keys), *keys, lease, 0, 10, 1 << 20, 1, 0, 0, "")
    assert reply[2] == 1 and reply[7:] == [2, b"", b"", -2, b"newer"]
    moved = client.eval(older("set_aside"), len(keys), *keys, lease, 2, "damaged")
    assert moved == [0, 0]
    client.zadd(filled.key(prefix, "deadlines"), {"large": 1})
    due: Any = client.eval(older("expire"), len(keys), *keys, 1000, 10, "", "")
    assert due == []
    given = ("large", "", -1, "{}", "ok")
    assert client.eval(older("settle"), len(keys), *keys, lease, "t", 1000, *given) == [
        0,
        [b"late"],
    ]
    # The newer worker takes the lane, and sends all of it.
    entries = owner.do(owner.store.read(1, 10, 1 << 20, mark=True))
    assert [each.context for each in entries] == ["large", "list", "list"]
    outcomes = [(each.context, each.place, receipt(each.label)) for each in entries]
    done = owner.settle(outcomes, "u").settled
    assert sorted(each.record.context for each in done) == ["large", "list"]
