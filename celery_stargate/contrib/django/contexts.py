"""A row's context: made of its UUID and attempt, so handing it over again is the same context."""

from __future__ import annotations

import uuid

__all__ = ["callback_task_id", "context_of", "parse_context"]


def context_of(row_id: uuid.UUID, attempt: int) -> str:
    """Return the context of one attempt to publish a row: its UUID, then ``UUID.2``, ``UUID.3``."""
    return str(row_id) if attempt == 1 else f"{row_id}.{attempt}"


def parse_context(context: str) -> tuple[uuid.UUID, int]:
    """Read what :func:`context_of` wrote: the row's UUID and the attempt.

    Raises:
        ValueError: it is not the context of a row.
    """
    text, dot, number = context.partition(".")
    row_id = uuid.UUID(text)
    attempt = int(number) if dot else 1
    if context_of(row_id, attempt) != context:
        raise ValueError(f"{context!r} is not the context of an outbox row")
    return row_id, attempt


def callback_task_id(context: str, option: str) -> str:
    """Return the task id of a row's callback: the same one whenever the outcome is told again.

    Arguments:
        option: ``on_ack`` or ``on_error``.
    """
    row_id, _ = parse_context(context)
    return str(uuid.uuid5(row_id, f"{option}:{context}"))
