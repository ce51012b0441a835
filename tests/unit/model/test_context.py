"""Contexts: which ids a call may have."""

from __future__ import annotations

import json
import uuid
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate import InvalidMessage
from celery_stargate.model.context import (
    MAX_CONTEXT_SIZE,
    attempt_context,
    check_context,
    is_among,
    new_context,
    new_contexts,
)
from celery_stargate.model.entry import label_of
from celery_stargate.model.frame import encode_frame, label_in
from celery_stargate.model.message import Message
from celery_stargate.pulsar.replies import decode_reply
from celery_stargate.pulsar.socket import _MAX_REPLY_SIZE


@pytest.mark.parametrize(
    "context",
    [
        str(uuid.UUID(int=5)),
        uuid.UUID(int=5).hex,
        "order-17 é😀",
        "https://shop.example/orders/17?line=3#x",
        "x" * 255,
        "x" * MAX_CONTEXT_SIZE,
        "😀" * (MAX_CONTEXT_SIZE // 4),
    ],
)
def test_ids_that_people_use(context: str) -> None:
    """Celery's own, those of their tables, and as long as any result backend keeps."""
    check_context(context)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ("", "must not be empty"),
        (None, "must be text, not NoneType; use str(…)"),
        (uuid.UUID(int=5), "must be text, not UUID; use str(…)"),
        (b"a", "must be text, not bytes"),
        ("x" * (MAX_CONTEXT_SIZE + 1), "has 513 bytes and the limit is 512; use a shorter id"),
        ("😀" * 129, "has 516 bytes and the limit is 512"),
        ("x" * 70_000, "has 70000 bytes"),
        ("\ud800" * 600, "has 600 bytes"),
        ("a\tb", "contains an unprintable character"),
        ("a\nb", "contains an unprintable character"),
        ("a\x00", "contains an unprintable character"),
        ("a\x7f", "contains an unprintable character"),
        ("a\ud800", "contains an unprintable character"),
        ("a\u2028", "contains an unprintable character"),
        ("a\u202e", "contains an unprintable character"),
    ],
)
def test_ids_that_are_refused(context: object, words: str) -> None:
    """In a short printable line, which does not contain the id."""
    with pytest.raises(InvalidMessage) as caught:
        check_context(context)
    text = str(caught.value)
    assert text.startswith("a context (task_id) ")
    assert words in text
    assert text.isprintable()
    assert len(text) < 200


@given(st.text(), st.integers(-1, 10**6))
def test_what_is_accepted_comes_back(context: str, place: int) -> None:
    """Pulsar's reply with it is far below our limit, and its label is no other context's."""
    try:
        check_context(context)
    except InvalidMessage:
        return
    label = label_of(context, place)
    frame = encode_frame(Message("x"), label, 1_048_576)
    assert label_in(frame) == label
    assert decode_reply(b'{"result":"ok",' + frame[1:]).context == label
    assert len(frame) < _MAX_REPLY_SIZE // 8
    with pytest.raises(InvalidMessage):
        check_context(f"{context}\t{place}")


@pytest.mark.parametrize(
    ("context", "found"),
    [
        ("a", True),
        ("a.retry-1", True),
        ("a.retry-12", True),
        ("a.retry-x", False),
        ("a.retry-", False),
        ("b", False),
        ("b.retry-1", False),
        ("c.retry-2", True),
        ("c", False),
    ],
)
def test_a_later_attempt_is_one_of_its_task(context: str, found: bool) -> None:
    """Who revoked a task by its id means all its attempts."""
    assert is_among(context, {"a", "c.retry-2"}) is found


def test_each_attempt_has_a_context() -> None:
    """The first one has the task's id."""
    assert [attempt_context("a", number) for number in range(3)] == ["a", "a.retry-1", "a.retry-2"]


@pytest.mark.parametrize("frame", [b"", b"{}", b"[1]", b"\xff", b'{"context":5}', b"[" * 100_000])
def test_what_is_no_frame_has_no_label(frame: bytes) -> None:
    with pytest.raises(ValueError, match="not a frame: "):
        label_in(frame)


def test_properties_that_are_added_do_not_replace_the_messages_own() -> None:
    own = Message("x", properties={"a": "own"})
    frame = encode_frame(own, "c", 1_048_576, {"a": "added", "b": "added"})
    assert json.loads(frame)["properties"] == {"a": "own", "b": "added"}


def test_a_frame_that_is_too_large() -> None:
    """The broker would close the connection."""
    size = len(encode_frame(Message("x"), "c", 1_048_576))
    assert encode_frame(Message("x"), "c", size)
    with pytest.raises(InvalidMessage, match=f"the frame has {size} bytes and the limit is"):
        encode_frame(Message("x"), "c", size - 1)


def test_a_new_context_is_a_random_uuid() -> None:
    """As those of Celery are, and each another one."""
    found = [*(new_context() for _ in range(500)), *islice(new_contexts(), 500)]
    assert len(set(found)) == 1000
    for each in found:
        read = uuid.UUID(each)
        assert (str(read), read.version, read.variant) == (each, 4, uuid.RFC_4122)
        check_context(each)
    # Each digit that is random takes all its values.
    for place in range(36):
        digits = {each[place] for each in found}
        assert len(digits) == {8: 1, 13: 1, 14: 1, 18: 1, 19: 4, 23: 1}.get(place, 16), place
