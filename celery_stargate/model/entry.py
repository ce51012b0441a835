"""One message in a lane's log, as the lane's owner reads it."""

from __future__ import annotations

import msgspec

from celery_stargate.model.follow_up import PRODUCE, FollowUp

__all__ = ["Entry", "label_of"]


def label_of(context: str, place: int) -> str:
    """Return the text that Pulsar echoes for a message.

    Arguments:
        context: the call's id. It contains no tab, so two messages never share a label.
        place: the message's position in the call's list; -1 for a single message.
    """
    return context if place < 0 else f"{context}\t{place}"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One message in a lane's log."""

    #: The message's number in the lane, from 1.
    number: int
    #: What Pulsar echoes: the context and, in a list, the message's position.
    label: str
    #: The frame as the lane stores it; :func:`~celery_stargate.model.frame.text_frame` makes what
    #: Pulsar gets.
    frame: bytes
    #: The message's position in the call's list; -1 for a single message.
    place: int = -1
    #: What must happen after its receipt.
    follow_up: FollowUp = FollowUp.MORE
    #: The task whose result the receipt is, if the follow-up stores one.
    task: str = PRODUCE
    #: The address of the call that waits for the receipt, if that is all that follows.
    inbox: str = ""

    @property
    def first(self) -> int:
        """The number of the first message of its context, which tells the context from others."""
        return self.number - self.place if self.place > 0 else self.number

    @property
    def context(self) -> str:
        """The id of the message's call."""
        return self.label if self.place < 0 else self.label.removesuffix(f"\t{self.place}")
