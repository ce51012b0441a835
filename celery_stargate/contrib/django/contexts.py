"""A row's context: made of its UUID and attempt, so handing it over again is the same context."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import suppress

from celery_stargate.errors import shown

__all__ = ["by_topic", "callback_task_id", "context_of", "parse_context"]


def context_of(row_id: uuid.UUID, attempt: int) -> str:
    """Return the context of one attempt to publish a row: its UUID, then ``UUID.2``, ``UUID.3``."""
    return str(row_id) if attempt == 1 else f"{row_id}.{attempt}"


def by_topic(attempts: Iterable[tuple[str, uuid.UUID, int]]) -> dict[str, list[str]]:
    """Return the contexts of attempts by their topics.

    Arguments:
        attempts: topic, UUID of the row and number of each.
    """
    found: dict[str, list[str]] = {}
    for topic, row_id, attempt in attempts:
        found.setdefault(topic, []).append(context_of(row_id, attempt))
    return found


def parse_context(context: str) -> tuple[uuid.UUID, int]:
    """Read what :func:`context_of` wrote: the row's UUID and the attempt.

    Raises:
        ValueError: it is not the context of a row.
    """
    text, dot, number = context.partition(".")
    with suppress(ValueError):
        row_id, attempt = uuid.UUID(text), int(number) if dot else 1
        if context_of(row_id, attempt) == context:
            return row_id, attempt
    raise ValueError(f"{shown(context)} is not the context of an outbox row")


def callback_task_id(context: str, option: str) -> str:
    """Return the task id of a row's callback: the same one whenever the outcome is told again.

    Arguments:
        option: ``on_ack`` or ``on_error``.
    """
    row_id, _ = parse_context(context)
    return str(uuid.uuid5(row_id, f"{option}:{context}"))
