"""Records: what a lane keeps, there and back, and what of damage is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate import Failure
from celery_stargate.lanes.record import (
    Record,
    Settled,
    decode_settled,
    encode_outcome,
    encode_record,
)
from celery_stargate.model.follow_up import PRODUCE, FollowUp
from celery_stargate.model.outcome import Outcome, Receipt
from tests.unit.helpers import TOPIC, failure, receipt

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
RECORDS = st.builds(
    Record,
    TEXT,
    is_list=st.booleans(),
    task=st.none() | TEXT,
    request=st.none() | TEXT,
    on_ack=st.none() | TEXT,
    on_error=st.none() | TEXT,
    inbox=st.none() | TEXT,
    parent=st.none() | st.tuples(TEXT, TEXT, st.integers(0, 1000)),
)
OUTCOMES = st.builds(
    Receipt, context=TEXT, topic=st.none() | TEXT, value=st.none() | st.integers(0, 9) | TEXT
) | st.builds(Failure, context=TEXT, reason=TEXT, status=st.sampled_from(["refused", "unknown"]))


def stored(record: Record) -> bytes:
    """Return a record as the scripts keep it, behind its head."""
    return b"1 7 1 0\n" + encode_record(record)


@given(RECORDS, st.lists(OUTCOMES, min_size=1, max_size=3))
def test_round_trip(record: Record, outcomes: list[Outcome]) -> None:
    """Through Redis and back, whatever the texts hold."""
    wire = b"[" + b",".join(encode_outcome(each) for each in outcomes) + b"]"
    assert decode_settled(stored(record), wire, TOPIC) == Settled(record, tuple(outcomes), first=7)


def test_the_deadlines_words() -> None:
    """The script has no sentences: 0 is a message never sent, 1 one that may be stored."""
    settled = decode_settled(stored(Record("c", is_list=True)), b"[0,1]", TOPIC)
    assert [
        (each.context, each.topic, each.status, each.code)
        for each in settled.outcomes
        if isinstance(each, Failure)
    ] == [("c", TOPIC, "refused", "deadline"), ("c", TOPIC, "unknown", "deadline")]


@pytest.mark.parametrize(
    "head", [b"", b"1 7 1 0", b"3 7 1 0\n{}", b"10 7 1 0\n{}", b"\n{}", b'{"context":"c"}\n']
)
def test_another_version(head: bytes) -> None:
    """Is told, for the owner to leave it alone; only the head's start is shown."""
    with pytest.raises(ValueError, match="^a record of an unknown version: ") as caught:
        decode_settled(head, b"[]", None)
    assert len(str(caught.value)) < 80


@pytest.mark.parametrize(
    ("body", "outcomes"),
    [
        (b"{}", b"[0]"),
        (b"[]", b"[0]"),
        (b'{"context":5}', b"[0]"),
        (b'{"context":"\xff"}', b"[0]"),
        (b'{"context":"c"', b"[0]"),
        (b'{"context":"c"}', b"0"),
        (b'{"context":"c"}', b""),
        (b'{"context":"c"}', b"[]"),
        (b'{"context":"c"}', b'["0"]'),
        (b'{"context":"c"}', b'[{"type":"rumour"}]'),
        (b'{"context":"c"}', b'[{"type":"receipt"}]'),
        (b'{"context":"c"}', b'[{"type":"receipt","context":"c","status":"lost"}]'),
        (
            b'{"context":"c"}',
            b'[{"type":"receipt","context":"c","value":' + b"[" * 10**5 + b"]" * 10**5 + b"}]",
        ),
    ],
)
def test_damage(body: bytes, outcomes: bytes) -> None:
    """Is a `ValueError` too, and one that can be logged."""
    with pytest.raises(ValueError, match="^a damaged record: ") as caught:
        decode_settled(b"1 7 1 0\n" + body, outcomes, None)
    assert str(caught.value).isprintable()


def test_what_json_cannot_carry() -> None:
    """Is refused before it is recorded."""
    with pytest.raises(TypeError):
        encode_outcome(Receipt(context="c", value=object()))


def test_fields_of_a_later_version_are_skipped() -> None:
    """A worker of the last version reads what a caller of the next one wrote."""
    body = json.dumps({"context": "c", "later": [1]}).encode()
    assert decode_settled(b"1 7 1 0\n" + body, b"[0]", None).record == Record("c")


def settled(*outcomes: Outcome, is_list: bool = False) -> Settled:
    """Return a settled context with these outcomes."""
    return Settled(Record("c", is_list=is_list), outcomes)


def test_a_result() -> None:
    """Of one message the receipt, of a list all of them in order, were it a list of one."""
    one, two = receipt(entry_id=1), receipt(entry_id=2)
    assert not settled(one).failed
    assert settled(one).result == one.to_dict()
    assert settled(one, is_list=True).result == [one.to_dict()]
    assert settled(one, two, is_list=True).result == [one.to_dict(), two.to_dict()]


def test_a_failure_of_one_message() -> None:
    """Is that failure."""
    assert settled(failure()).failed
    assert settled(failure()).failure == failure()


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([failure(reason="a")], ("refused", "1 of 1 messages failed: a")),
        ([receipt(), failure(reason="a")], ("refused", "1 of 2 messages failed: a")),
        (
            [failure(reason="a"), failure(reason="b", status="unknown"), receipt()],
            ("unknown", "2 of 3 messages failed: b"),
        ),
    ],
)
def test_a_failure_of_a_list(outcomes: list[Outcome], expected: tuple[str, str]) -> None:
    """Holds every message's outcome, and is unknown where any message is."""
    found: Any = settled(*outcomes, is_list=True).failure
    assert (found.status, found.reason) == expected
    assert found.context == "c"
    assert found.topic == TOPIC
    assert found.outcomes == [each.to_dict() for each in outcomes]
    json.dumps(found.to_dict())


def called(task: str = PRODUCE, *, is_list: bool = False, **request: Any) -> Record:
    """Return the record of a task's call."""
    packed = json.dumps({"ignore_result": False, "lang": "py", **request})
    return Record("c", is_list=is_list, task=task, request=packed)


@pytest.mark.parametrize(
    ("record", "follow_up"),
    [
        (Record("c"), FollowUp.NOTHING),
        (Record("c", on_error="{}"), FollowUp.NOTHING),
        (Record("c", on_ack="{}"), FollowUp.MORE),
        (Record("c", inbox="i/1"), FollowUp.WAITER),
        (Record("c", inbox="i/1", on_error="{}"), FollowUp.WAITER),
        (Record("c", inbox="i/1", on_ack="{}"), FollowUp.MORE),
        (Record("c", inbox="i/1", is_list=True), FollowUp.MORE),
        (Record("c", inbox="i/1", task="t", request="{}"), FollowUp.MORE),
        (Record("c", parent=("lane", "c", 1)), FollowUp.MORE),
        (called(), FollowUp.RESULT),
        (called(ignore_result=True), FollowUp.IGNORED),
        (called("shop.orders"), FollowUp.RESULT),
        (called(callbacks=[], chain=None, errbacks=[{"task": "x"}]), FollowUp.RESULT),
        (called(ignore_result=None), FollowUp.MORE),
        (Record("c", task=PRODUCE), FollowUp.MORE),
        (called(group="g"), FollowUp.MORE),
        (called(parent_id="p"), FollowUp.MORE),
        (called(callbacks=[{"task": "x"}]), FollowUp.MORE),
        (called(chain=[{"task": "x"}]), FollowUp.MORE),
        (called(chord={"task": "x"}), FollowUp.MORE),
        (called(is_list=True), FollowUp.MORE),
        (called(group={"__type__": "uuid"}), FollowUp.MORE),
        (Record("c", task=PRODUCE, request="[1"), FollowUp.MORE),
    ],
)
def test_what_follows(record: Record, follow_up: FollowUp) -> None:
    """Where it cannot be told for sure, it may be anything."""
    assert record.follow_up is follow_up


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (Record("c"), "q"),
        (called(), "r"),
        (called(ignore_result=True), "i"),
        (called("shop.orders"), "rshop.orders"),
        (called("shop.orders", ignore_result=True), "ishop.orders"),
        (called("shop.orders", group="g"), "f"),
    ],
)
def test_the_code_in_the_log_names_a_task_of_the_users_own(record: Record, code: str) -> None:
    """The produce task of every app is not named: its name would be most of the entry."""
    assert record.follow_up_code == code
