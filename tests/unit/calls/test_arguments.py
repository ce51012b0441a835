"""The arguments of a produce task's call."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate.calls.arguments import Arguments, shown
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
        (
            (),
            {"message": "a", "topik": "t", "b": 1},
            r"no argument 'b', 'topik'; did you mean 'topic'\? Its arguments",
        ),
        (("a",), {"timeout": 5}, "has no argument 'timeout'; here it is 'delivery_timeout'"),
        ((), {}, "no message was given"),
    ],
)
def test_what_is_no_call(args: Any, kwargs: Any, words: str) -> None:
    """It is told as Python tells it."""
    with pytest.raises(TypeError, match=words):
        Arguments.read(args, kwargs)


@pytest.mark.parametrize(("message", "words"), [("s3cret", "<1 message "), (["a"] * 2, "<2 mess")])
def test_what_is_shown(message: Any, words: str) -> None:
    """A count and the topic, and never a payload."""
    call = Preparation(Topic.parse("orders"), ProducerOptions()).call(message, "c")
    assert words in shown(call)
    assert "s3cret" not in shown(call)
