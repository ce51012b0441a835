"""``pulsar/message_id.py``: what is read of a message id, whatever a broker sends."""

from __future__ import annotations

import base64

import pytest

from celery_stargate.pulsar.message_id import MessageId


def encoded(data: bytes) -> str:
    """Return bytes as Pulsar sends a message id."""
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "given",
    [
        MessageId(12, 0, -1, -1),
        MessageId(1, 127, -1, -1),
        MessageId(2**40, 128, -1, -1),
        MessageId(2**62, 2**62, -1, -1),
    ],
)
def test_there_and_back(given: MessageId) -> None:
    """Small and large numbers."""
    assert MessageId.decode(given.encode()) == given


def test_fields_that_are_not_known_are_passed_over() -> None:
    """A newer broker may have more; tags may have several bytes."""
    known = b"\x08\x0c\x10\x05"
    part = b"\x18\x03\x20" + b"\xff" * 9 + b"\x01"
    assert MessageId.decode(encoded(known + part)) == MessageId(12, 5, 3, -1)
    text, far = b"\x32\x03abc", b"\xa0\x06\x01"
    assert MessageId.decode(encoded(known + text + far)) == MessageId(12, 5, -1, -1)
    assert MessageId.decode(encoded(text + known)) == MessageId(12, 5, -1, -1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08\x0c",
        b"\x10\x05",
        b"\x08",
        b"\x08\x0c\x10\xff",
        b"\x08\x0c\x10\x05\x32\x09abc",
        b"\x08\x0c\x10" + b"\xff" * 12,
        b"\x09\x0c\x10\x05",
        b"\x08\x0c\x10\x05\x33",
    ],
)
def test_what_is_no_message_id(data: bytes) -> None:
    """Is an error, and never a wrong number: cut off, without an end, of another wire type."""
    with pytest.raises(ValueError):
        MessageId.decode(encoded(data))
