"""``pulsar/link.py``: what the end of a connection says about the messages in flight."""

from __future__ import annotations

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close, CloseCode

from celery_stargate.pulsar.link import Blame, blame

BIG, GOING, ODD = CloseCode.MESSAGE_TOO_BIG, CloseCode.GOING_AWAY, CloseCode.PROTOCOL_ERROR
PING = CloseCode.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("theirs", "ours", "they_began", "expected"),
    [
        (BIG, None, None, Blame.FRAME_TOO_LARGE),
        (BIG, BIG, True, Blame.FRAME_TOO_LARGE),
        (GOING, GOING, True, Blame.NONE),
        (ODD, ODD, True, Blame.UNCLEAR),
        (None, BIG, None, Blame.REPLY_TOO_LARGE),
        (BIG, BIG, False, Blame.REPLY_TOO_LARGE),
        (None, PING, None, Blame.NONE),
        (None, ODD, None, Blame.UNCLEAR),
        (None, None, None, Blame.UNCLEAR),
    ],
)
def test_who_closed_it_and_why(
    theirs: CloseCode | None, ours: CloseCode | None, they_began: bool | None, expected: Blame
) -> None:
    """The side that began tells: a frame too large for it, or that it goes away."""
    given = [None if code is None else Close(code, "") for code in (theirs, ours)]
    assert blame(ConnectionClosedError(given[0], given[1], they_began)) is expected


def test_a_connection_that_just_broke() -> None:
    """Says nothing: it may have been any of them."""
    assert blame(ConnectionResetError()) is Blame.UNCLEAR
    assert not Blame.UNCLEAR.certain
    assert not Blame.NONE.certain
    assert Blame.FRAME_TOO_LARGE.certain
