"""The arguments of a produce task's call."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from celery_stargate import Message
from celery_stargate.calls.arguments import Arguments, canonical, shown
from celery_stargate.calls.prepare import Preparation
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic


def test_by_place_or_by_name() -> None:
    """Both are the same."""
    assert Arguments.read(("a",), {"topic": "t"}) == Arguments.read(
        None, {"message": "a", "topic": "t"}
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        (("a", "b"), {}, "2 positional arguments were given"),
        (("a",), {"message": "b"}, "takes one message"),
        ((), {"message": "a", "topik": "t", "b": 1}, "unknown: b, topik"),
        ((), {}, "no message was given"),
    ],
)
def test_what_is_no_call(args: Any, kwargs: Any, words: str) -> None:
    """It is told as Python tells it."""
    with pytest.raises(TypeError, match=words):
        Arguments.read(args, kwargs)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("a", "a"),
        (("k", b"p"), {"key": "k", "payload": b"p"}),
        ([("k", "p"), "a"], [{"key": "k", "payload": "p"}, "a"]),
        ({"payload": "p", "deliver_after": timedelta(seconds=5)}, {"deliver_after": 5.0}),
        (Message(payload="p", key="k"), {"key": "k"}),
        (("a", "b", "c"), ("a", "b", "c")),
    ],
)
def test_what_json_keeps(message: Any, expected: Any) -> None:
    """A pair becomes a mapping; what is no message stays, to be refused."""
    found = canonical(message)
    if isinstance(expected, dict):
        assert found.items() >= expected.items()
    else:
        assert found == expected


@pytest.mark.parametrize(("message", "words"), [("s3cret", "<1 message "), (["a"] * 2, "<2 mess")])
def test_what_is_shown(message: Any, words: str) -> None:
    """A count and the topic, and never a payload."""
    call = Preparation(Topic.parse("orders"), ProducerOptions()).call(message, "c")
    assert words in shown(call)
    assert "s3cret" not in shown(call)
