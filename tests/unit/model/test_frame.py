"""Frames: what a lane stores, and the text that Pulsar gets for it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate import Message
from celery_stargate.errors import InvalidMessage
from celery_stargate.model.frame import (
    encode_frame,
    fields_in,
    frame_size,
    label_in,
    relabelled,
    text_frame,
)

#: Around the size from which a payload is stored as bytes.
PAYLOADS = st.sampled_from([0, 1, 1023, 1024, 1025, 1026, 5000]).flatmap(
    lambda size: st.binary(min_size=8, max_size=8).map(lambda some: (some * (size // 8 + 1))[:size])
)
LABELS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(PAYLOADS, LABELS, st.none() | st.just("order-17"), LABELS)
def test_pulsar_gets_the_same_however_it_is_stored(
    payload: bytes, label: str, key: str | None, other: str
) -> None:
    """The text has all fields; its size and its label are known without it."""
    stored = encode_frame(Message(payload=payload, key=key), label, 1 << 20)
    text = text_frame(stored)
    expected = {"payload": base64.b64encode(payload).decode(), "context": label}
    assert json.loads(text) == expected | ({} if key is None else {"key": key})
    assert frame_size(stored) == len(text)
    assert label_in(stored) == label_in(text) == label
    again = relabelled(stored, other)
    assert again is not None
    assert json.loads(text_frame(again)) == json.loads(text) | {"context": other}
    for each in (stored, again):
        # Where the scripts look for it; they decode a text as a whole.
        assert each.startswith(b"{") or b'"context":"' in each[-1024:]


@pytest.mark.parametrize(("size", "beside"), [(100, 40), (1024, 30), (10_000, 30), (500_000, 30)])
def test_what_is_stored_beside_the_payload(size: int, beside: int) -> None:
    """A third of a small payload, and nothing of a large one."""
    stored = encode_frame(Message(payload=b"\xff" * size), "c", 1 << 20)
    assert len(stored) <= size + beside + (size // 3 if size < 1024 else 0)


def test_the_limit_is_of_the_text() -> None:
    """Pulsar gets that, and counts it."""
    message = Message(payload=b"x" * 5000)
    size = len(text_frame(encode_frame(message, "c", 10_000)))
    assert encode_frame(message, "c", size)
    with pytest.raises(InvalidMessage, match=f"has {size} bytes and the limit is {size - 1}"):
        encode_frame(message, "c", size - 1)


@pytest.mark.parametrize(
    "stored",
    [b"", b"5", b"5\n", b"5\nabc{}", b"9" * 19 + b"\n{}", b"-1\n{}", b"x\n{}", b"\xff"],
)
def test_a_damaged_frame(stored: bytes) -> None:
    """It has no label, and nothing is made of it."""
    with pytest.raises(ValueError, match="not a frame"):
        label_in(stored)
    assert text_frame(stored) == fields_in(stored) == stored
    assert frame_size(stored) == len(stored)
    assert relabelled(stored, "c") is None


def test_a_long_label_makes_text_of_a_stored_payload() -> None:
    """The scripts look for a label in the last bytes of a frame that is text."""
    stored = encode_frame(Message("x" * 2000), "short", 1_048_576)
    assert not stored.startswith(b"{")
    label = "l" * 241
    again = relabelled(stored, label)
    assert again is not None
    assert again.startswith(b"{")
    assert label_in(again) == label
    assert base64.b64decode(json.loads(again)["payload"]) == b"x" * 2000
