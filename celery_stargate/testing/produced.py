"""`assert_produced`: what a test's code must have produced, and a diff where it did not."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pprint import pformat
from typing import Any, Protocol, TypeVar

__all__ = ["ANYTHING", "Expected", "ProducedMessage", "check_produced"]


class _Anything:
    """Stands for what a test does not ask about."""

    def __repr__(self) -> str:
        return "…"


ANYTHING: Any = _Anything()

#: A topic may hold many messages; an error's text shows the nearest.
_SHOWN = 3
#: How often a topic is looked at while a worker may still publish, in seconds.
_LOOK_EVERY = 0.02


class ProducedMessage(Protocol):
    """What the assertion reads of a message."""

    @property
    def payload(self) -> bytes:
        """The message's bytes."""

    @property
    def key(self) -> str | None:
        """Its key."""

    @property
    def properties(self) -> Mapping[str, str]:
        """Its properties."""


M = TypeVar("M", bound=ProducedMessage)


class Expected:
    """What a message must be like; what is not given matches anything.

    Args:
        payload: bytes; text; or any JSON value, which is compared with the decoded payload.
        key: the key; None for a message without one.
        properties: properties that the message must have; others do not matter.
    """

    def __init__(self, payload: Any, key: Any, properties: Mapping[str, Any] | None) -> None:
        self._payload = payload
        self._key = key
        self._properties = dict(properties or {})

    def __str__(self) -> str:
        given = {"payload": self._payload, "key": self._key, "properties": self._properties}
        shown = [
            f"{name}={value!r}"
            for name, value in given.items()
            if value is not ANYTHING and (name != "properties" or value)
        ]
        return ", ".join(shown) or "any message"

    def differences(self, message: ProducedMessage) -> list[str]:
        """Return what is wrong with a message, a text for each part; nothing if it matches."""
        found = []
        if self._key is not ANYTHING and self._key != message.key:
            found.append(f"key: expected {self._key!r}, and it has {message.key!r}")
        for name, value in self._properties.items():
            if name not in message.properties:
                found.append(f"property {name!r} is missing; it has {dict(message.properties)!r}")
            elif value != message.properties[name]:
                has = message.properties[name]
                found.append(f"property {name!r}: expected {value!r}, and it has {has!r}")
        if self._payload is not ANYTHING:
            read = _read_like(self._payload, message.payload)
            if self._payload != read:
                found.append("payload:\n" + _indented(_diff(self._payload, read)))
        return found


def check_produced(
    messages: Callable[[], Sequence[M]],
    topic: str,
    expected: Expected,
    *,
    count: int | None = None,
    timeout: float = 0.0,
    others: Callable[[], Mapping[str, int]] = dict,
) -> list[M]:
    """Check that a topic has messages like these, and return them.

    Args:
        messages: returns the topic's messages.
        topic: its name, for the error.
        count: how many must match; None: at least one.
        timeout: seconds to wait for them, where a worker publishes.
        others: returns how many messages each topic has, for the error.

    Raises:
        AssertionError: they are not there. The text shows the nearest messages.
    """
    end = time.monotonic() + timeout
    while True:
        found = messages()
        matching = [each for each in found if not expected.differences(each)]
        enough = len(matching) >= (1 if count is None else count)
        if enough or time.monotonic() >= end:
            break
        time.sleep(_LOOK_EVERY)
    if enough and (count is None or len(matching) == count):
        return matching
    raise AssertionError(_problem(found, matching, topic, expected, count, others))


def _problem(
    found: Sequence[ProducedMessage],
    matching: Sequence[ProducedMessage],
    topic: str,
    expected: Expected,
    count: int | None,
    others: Callable[[], Mapping[str, int]],
) -> str:
    wanted = "a message" if count is None else _messages(count)
    text = [f"expected {wanted} in {topic} with {expected}; {len(matching)} of {len(found)} match"]
    if not found:
        counts = {name: number for name, number in others().items() if name != topic and number}
        elsewhere = ", ".join(f"{name} ({number})" for name, number in counts.items())
        text.append(f"the topic has no messages; those that have: {elsewhere or 'none'}")
        return "\n".join(text)
    wrong = [(place, each) for place, each in enumerate(found) if expected.differences(each)]
    if len(matching) > (count or 0) or not wrong:
        places = [str(place) for place, each in enumerate(found) if not expected.differences(each)]
        text.append(f"those that match have the places {', '.join(places)} (from 0)")
        return "\n".join(text)
    nearest = sorted(wrong, key=lambda one: len("".join(expected.differences(one[1]))))[:_SHOWN]
    for place, message in nearest:
        text.append(f"message {place} of {len(found)} (key {message.key!r}) does not match:")
        text += [_indented(each) for each in expected.differences(message)]
    if len(wrong) > len(nearest):
        text.append(f"… and {len(wrong) - len(nearest)} more")
    return "\n".join(text)


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _read_like(expected: Any, payload: bytes) -> Any:
    """Return a payload as what is expected: bytes, text, or what the JSON holds."""
    if isinstance(expected, bytes | bytearray | memoryview):
        return payload
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return payload
    if isinstance(expected, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _diff(expected: Any, found: Any) -> str:
    lines = difflib.ndiff(_lines(expected), _lines(found))
    return "\n".join(["- expected, + found", *(line.rstrip("\n") for line in lines)])


def _lines(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.splitlines() or [""]
    try:
        return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).splitlines()
    except (TypeError, ValueError):
        return pformat(value).splitlines()


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
