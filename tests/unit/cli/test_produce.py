"""Which messages ``produce`` sends together, and what it counts at Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celery_stargate import Message
from celery_stargate.cli.output import Output
from celery_stargate.cli.produce import INTERRUPTED, _chunks, _Progress, _send, _Tally

_ONE = Message(payload="x")


def sizes(*messages: Message | None, seconds: float = 0.0) -> list[int]:
    """Return how many messages each chunk has; each takes so long to come."""
    now = 0.0

    def come() -> Iterator[Message | None]:
        nonlocal now
        for message in messages:
            now += seconds
            yield message

    return [len(chunk) for chunk in _chunks(come(), lambda: now)]


def test_many_that_come_at_once() -> None:
    """They are sent by the thousand."""
    assert sizes(*[_ONE] * 2001) == [1000, 1000, 1]
    assert sizes() == []


def test_those_that_are_there_when_no_more_comes() -> None:
    """They do not wait; without any there is nothing to send."""
    assert sizes(None, _ONE, _ONE, None, None, _ONE) == [2, 1]


def test_those_that_come_one_after_another_without_a_pause() -> None:
    """The first waits a second at most."""
    assert sizes(*[_ONE] * 25, seconds=0.125) == [9, 9, 7]


class Interrupted:
    """A Stargate whose second call is interrupted."""

    def __init__(self) -> None:
        self.calls = 0

    def produce_many(self, chunk: list[Message], **_: Any) -> list[Any]:
        """Return nothing at first."""
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return []


def test_what_is_in_flight_at_an_interrupt() -> None:
    """Nobody knows what became of it."""
    stargate: Any = Interrupted()
    tally = _Tally()
    messages = iter([_ONE, None, _ONE, _ONE, None, _ONE])
    with pytest.raises(KeyboardInterrupt):
        _send(stargate, messages, None, None, tally, _Progress(Output(), shows=False))
    assert tally.counts["unknown"] == 2
    tally.interrupted = True
    assert tally.exit_code == INTERRUPTED
