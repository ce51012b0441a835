"""``operations/dead_records.py``: a dead letter as it is stored, and the next attempt at it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, encode_record
from celery_stargate.model.frame import encode_frame
from celery_stargate.model.message import Message
from celery_stargate.operations.dead_records import EFFECTS, Letter, make_replay
from tests.unit.helpers import TOPIC

FRAME = encode_frame(Message("payload"), "c", 10**6)


def letter(outcome: bytes = b"0", kind: str = "m") -> Letter:
    """A dead letter of the context ``c`` that failed twice."""
    return Letter(Lane(TOPIC), "c", kind, 2, 1000, 2000, 1, 10, "ProduceError", "http-404", outcome)


def body(record: Record, frame: bytes = FRAME) -> bytes:
    """What is stored beside it."""
    return encode_record(record) + b"\n" + frame


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        (b"0", "refused", "passed"),
        (b"1", "unknown", "passed"),
        (b"?", "unknown", "its outcome cannot be read"),
        (b"", "unknown", "its outcome cannot be read"),
    ],
)
def test_why_it_failed(outcome: bytes, status: str, reason: str) -> None:
    """As far as that can be read."""
    view = letter(outcome).view(10.0)
    assert view.status == status
    assert reason in view.reason


@pytest.mark.parametrize(
    "stored",
    [b"", b"?", b"no JSON\n" + FRAME, body(Record("c"), b"no frame"), body(Record("c"), b"")],
)
def test_what_cannot_be_sent_again(stored: bytes) -> None:
    """Is said to be so, and nothing is made of it."""
    assert make_replay(letter(), stored) is None
    assert letter().detail(10.0, stored).replayable is False


def test_the_next_attempt() -> None:
    """Under a context of its own, with the callbacks and the request, but outside the chord."""
    request = json.dumps({"id": "c", "chord": {"task": "shop.all"}, "root_id": "r"})
    record = Record("c", task="shop.orders", request=request, on_ack="ack", inbox="i/1")
    found = make_replay(letter(), body(record))
    assert found is not None
    assert found.context == "c.replay-2"
    made: dict[str, Any] = json.loads(found.body)
    assert made["replayed"] == [2, 1000]
    assert (made["task"], made["on_ack"]) == ("shop.orders", "ack")
    assert json.loads(made["request"]) == {"id": "c", "root_id": "r"}
    assert made["incarnation"]
    assert "inbox" not in made
    assert json.loads(found.frame)["context"] == "c.replay-2"


@pytest.mark.parametrize("request_", [None, '{"id":"c"}'])
def test_a_request_without_a_chord(request_: str | None) -> None:
    """Stays as it is; without callbacks there is nothing to tell apart."""
    found = make_replay(letter(), body(Record("c", task="t", request=request_)))
    assert found is not None
    made = json.loads(found.body)
    assert made.get("request") == request_
    assert "incarnation" not in made


def test_effects_that_are_done_again() -> None:
    """Send nothing."""
    stored = b"2 1 1 0\n" + encode_record(Record("c", on_ack="ack")) + b"\n[]"
    found = make_replay(letter(kind=EFFECTS), stored)
    assert found is not None
    assert (found.context, found.body, found.frame) == ("c", b"", b"")
