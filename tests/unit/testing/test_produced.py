"""``produced.py``: what matches, and what the error says where nothing does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import ANY

import msgspec
import pytest

from celery_stargate.testing.produced import ANYTHING, Expected, check_produced

_TOPIC = "persistent://public/default/orders"


class _Message(msgspec.Struct):
    payload: bytes
    key: str | None = None
    properties: dict[str, str] = {}


def _check(messages: list[_Message], count: int | None = None, **expected: Any) -> list[_Message]:
    given = {"payload": ANYTHING, "key": ANYTHING, "properties": None, **expected}
    return check_produced(lambda: messages, _TOPIC, Expected(**given), count=count)


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"payload": b'{"a": [1]}'},
        {"payload": '{"a": [1]}'},
        {"payload": {"a": [1]}},
        {"payload": {"a": ANY}},
        {"key": "k"},
        {"properties": {"type": "new"}},
        {"payload": {"a": [1]}, "key": "k", "properties": {"type": "new"}},
    ],
)
def test_what_matches(expected: Mapping[str, Any]) -> None:
    """Bytes, text or JSON; a part of the properties."""
    message = _Message(b'{"a": [1]}', "k", {"type": "new", "other": "x"})
    assert _check([_Message(b"\xff"), message], **expected)[-1] == message


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ({"payload": {"a": 2}}, '+   "a": 1'),
        ({"payload": "b"}, '+ {"a": 1}'),
        ({"payload": {1, 2}}, "- {1, 2}"),
        ({"payload": b"b"}, "- b'b'"),
        ({"key": None}, "key: expected None, and it has 'k'"),
        ({"properties": {"type": "old"}}, "property 'type': expected 'old', and it has 'new'"),
        ({"properties": {"size": "1"}}, "property 'size' is missing; it has {'type': 'new'}"),
    ],
)
def test_what_does_not(expected: Mapping[str, Any], text: str) -> None:
    """The error says what is different."""
    with pytest.raises(AssertionError, match="0 of 1 match") as caught:
        _check([_Message(b'{"a": 1}', "k", {"type": "new"})], **expected)
    assert text in str(caught.value)


def test_counts() -> None:
    """As many as were asked for, and no more."""
    two = [_Message(b"a"), _Message(b"a")]
    assert len(_check(two, count=2)) == 2
    assert _check([], count=0) == []
    with pytest.raises(AssertionError, match="expected 1 message in .* 2 of 2 match\n.*0, 1"):
        _check(two, count=1)
    with pytest.raises(AssertionError, match="expected 3 messages in .* 2 of 2 match"):
        _check(two, count=3)
    with pytest.raises(AssertionError, match="with payload='a'; 2 of 3 match\n.*0, 2"):
        _check([two[0], _Message(b"b"), two[1]], count=0, payload="a")


def test_the_nearest_are_shown() -> None:
    """Three of many, the nearest first."""
    messages = [_Message(b"lantern", f"order-{number}") for number in range(9)]
    messages[7] = _Message(b"lamp", "order-7")
    with pytest.raises(AssertionError) as caught:
        _check(messages, payload="lamp", key="order-9")
    lines = str(caught.value).splitlines()
    assert lines[1] == "message 7 of 9 (key 'order-7') does not match:"
    assert lines[-1] == "… and 6 more"


def test_another_topic() -> None:
    """The error says where messages are instead."""
    counts = {_TOPIC: 0, "persistent://public/default/order": 2}
    with pytest.raises(AssertionError, match=r"those that have: persistent://.*/order \(2\)"):
        check_produced(
            list, _TOPIC, Expected(ANYTHING, ANYTHING, None), others=lambda: counts, timeout=0.01
        )
