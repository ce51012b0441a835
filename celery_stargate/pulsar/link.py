"""Errors of a connection to Pulsar."""

from __future__ import annotations

from enum import Enum
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from celery_stargate.model.entry import Entry
from celery_stargate.pulsar.sentences import plain
from celery_stargate.pulsar.verdicts import Verdict, classify_handshake

__all__ = ["Blame", "HandshakeRefused", "LinkBroken", "blame"]


class Blame(Enum):
    """What the end of a connection says about the messages that were in flight."""

    NONE = "none"  #: none of them broke it: the server goes away, or does not answer
    UNCLEAR = "unclear"  #: perhaps one of them broke it
    FRAME_TOO_LARGE = "frame too large"  #: the server closed it: one of them is too large for it
    REPLY_TOO_LARGE = "reply too large"  #: we closed it: the reply to one of them is too large
    UNREADABLE = "unreadable"  #: Pulsar could not read one of them, and does not say which

    @property
    def certain(self) -> bool:
        """Whether it was surely one of them."""
        return self not in (Blame.NONE, Blame.UNCLEAR)

    @property
    def not_stored(self) -> bool:
        """Whether the message that broke it is surely not stored."""
        return self in (Blame.FRAME_TOO_LARGE, Blame.UNREADABLE)


#: Close codes by which a server says that it goes away.
_GOING = (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER)


def blame(error: BaseException) -> Blame:
    """Return what the end of a connection says about the messages in flight."""
    if not isinstance(error, ConnectionClosed):
        return Blame.UNCLEAR
    theirs, ours = error.rcvd, error.sent
    if theirs is not None and (ours is None or error.rcvd_then_sent):
        if theirs.code == CloseCode.MESSAGE_TOO_BIG:
            return Blame.FRAME_TOO_LARGE
        return Blame.NONE if theirs.code in _GOING else Blame.UNCLEAR
    if ours is not None and ours.code == CloseCode.MESSAGE_TOO_BIG:
        return Blame.REPLY_TOO_LARGE
    # We close it when a ping has no answer: then nothing at all is answered.
    keepalive = ours is not None and ours.code == CloseCode.INTERNAL_ERROR
    return Blame.NONE if keepalive else Blame.UNCLEAR


class LinkBroken(Exception):
    """The connection could not be made, or broke: what has no receipt is sent again.

    Arguments:
        reason: a sentence for the log.
        blame: what it says about the messages in flight.
        entry: the message that it is about, if that is known.
    """

    def __init__(
        self, reason: str, blame: Blame = Blame.UNCLEAR, entry: Entry | None = None
    ) -> None:
        super().__init__(reason)
        self.blame = blame
        self.entry = entry


class HandshakeRefused(Exception):
    """Pulsar refused the handshake of a producer.

    Arguments:
        status: the HTTP status.
        sentence: the reason from Pulsar's error page.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status = status
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence

    @property
    def permanent(self) -> bool:
        """Whether a retry cannot succeed."""
        return classify_handshake(self.status, self.sentence) is Verdict.PERMANENT


def _link_sentence(url: str, error: BaseException) -> str:
    host = urlsplit(url)
    where = f"{host.scheme}://{host.hostname}:{host.port or (443 if host.scheme == 'wss' else 80)}"
    return f"no connection to {where}: {plain(str(error) or type(error).__name__)}"
