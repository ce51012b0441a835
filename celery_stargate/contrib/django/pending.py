"""A pending row as the relay reads it: what a message is made of, and not a model's instance."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from celery_stargate.contrib.django.contexts import context_of
from celery_stargate.model.message import Message

__all__ = ["PendingRow", "message_of", "read_pending"]


class PendingRow(NamedTuple):
    """The columns that a hand-over needs; the names are those of the model."""

    pk: int
    uuid: uuid.UUID
    attempt: int
    tries: int
    topic: str
    key: str | None
    payload: bytes
    attributes: dict[str, Any] | None
    delivery_timeout: float | None

    @property
    def context(self) -> str:
        """The context of the present attempt."""
        return context_of(self.uuid, self.attempt)

    def to_message(self) -> Message:
        """Return the message to publish.

        Raises:
            InvalidMessage, TypeError: as :func:`message_of`.
        """
        return message_of(self.payload, self.key, self.attributes)


def message_of(payload: bytes, key: str | None, attributes: dict[str, Any] | None) -> Message:
    """Return the message of a row.

    Raises:
        InvalidMessage: the row was changed into something that cannot be published.
        TypeError: ``attributes`` holds a field that a message does not have.
    """
    return Message(payload=bytes(payload), key=key, **(attributes or {}))


def read_pending(rows: Any, most: int) -> Sequence[PendingRow]:
    """Return rows in their order.

    Arguments:
        rows: which.
        most: how many at most.

    Raises:
        django.db.DatabaseError: the database did not answer.
    """
    columns = rows.order_by("pk").values_list(*PendingRow._fields)[:most]
    return list(map(PendingRow._make, columns))
