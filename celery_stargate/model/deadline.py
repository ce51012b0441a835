"""The failure of a message whose deadline passed: made here, and only here."""

from __future__ import annotations

from celery_stargate.model.outcome import Failure

__all__ = ["deadline_failure"]


#: By whether the message was sent.
_REASONS = {
    False: "the deadline passed before it could be sent",
    True: "the deadline passed after it may have been sent, and no receipt came",
    None: "the deadline passed, and nobody could tell what became of the message",
}


def deadline_failure(context: str, topic: str | None, *, sent: bool | None) -> Failure:
    """Return the failure of a message whose deadline passed without a receipt.

    Arguments:
        context: the id of the call.
        topic: the full name of the topic; None for a context without a message.
        sent: whether the message was, or may have been, sent; None if nobody could tell.
    """
    return Failure(
        context=context,
        topic=topic,
        # Promise P3: only a message that was surely not sent is "refused".
        status="refused" if sent is False else "unknown",
        code="deadline",
        reason=_REASONS[sent],
    )
