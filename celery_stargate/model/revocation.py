"""The failure of a message that was never sent because its task was revoked, or had expired."""

from __future__ import annotations

from celery_stargate.model.outcome import Failure

__all__ = ["EXPIRED", "REVOKED", "expired_failure", "revoked_failure"]

#: The codes of these failures. Celery's state of such a task is ``REVOKED``.
EXPIRED, REVOKED = "expired", "revoked"


def expired_failure(context: str, topic: str | None) -> Failure:
    """Return the failure of a message whose ``expires`` was over before it could be sent.

    Arguments:
        context: the id of the call.
        topic: the full name of its topic.
    """
    return Failure(
        context=context,
        topic=topic,
        reason="the task expired before it was sent",
        code=EXPIRED,
    )


def revoked_failure(context: str, topic: str | None) -> Failure:
    """Return the failure of a message whose task was revoked before it was sent.

    Arguments:
        context: the id of the call.
        topic: the full name of its topic; None for a context without a message.
    """
    return Failure(
        context=context,
        topic=topic,
        reason="the task was revoked before it was sent",
        code=REVOKED,
    )
