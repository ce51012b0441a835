"""One message of a lane's log, as its owner reads it."""

from __future__ import annotations

import msgspec

from celery_stargate.model.follow_up import PRODUCE, FollowUp

__all__ = ["Entry", "label_of"]


def label_of(context: str, place: int) -> str:
    """Return what Pulsar echoes for a message: its context, and in a list its place there.

    The tab between them is in no context, so no label is that of another message.
    """
    return context if place < 0 else f"{context}\t{place}"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One message of a lane's log."""

    #: The lane's sequence number, 1 and up.
    number: int
    #: What Pulsar echoes: the context, and the message's place where the call gave a list.
    label: str
    #: The JSON text frame.
    frame: bytes
    #: The message's place in its list; -1 where it is in none.
    place: int = -1
    #: What follows its receipt.
    follow_up: FollowUp = FollowUp.MORE
    #: The task that is done with it, where the follow_up is one's.
    task: str = PRODUCE

    @property
    def first(self) -> int:
        """The number of the first message of its context, which tells the context from others."""
        return self.number - self.place if self.place > 0 else self.number

    @property
    def context(self) -> str:
        """The context that the message belongs to."""
        return self.label if self.place < 0 else self.label.removesuffix(f"\t{self.place}")
