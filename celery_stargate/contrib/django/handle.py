"""What a caller gets for a message: its context at once, and its state whenever it asks."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async

from celery_stargate.contrib.django.rows import outbox_rows
from celery_stargate.contrib.django.states import State
from celery_stargate.errors import StargateError

__all__ = ["Handle"]


@dataclass(frozen=True, slots=True)
class Handle:
    """A message in the outbox.

    Arguments:
        context: the id that Pulsar echoes, and that callbacks get.
        uuid: the row's UUID.
        topic: the topic's full name.
        using: the database that holds the row.

    Example:
        >>> with transaction.atomic():
        ...     handle = outbox.produce("one lamp", topic="orders")
        >>> handle.row().topic
        'persistent://public/default/orders'
    """

    context: str
    uuid: uuid.UUID
    topic: str
    using: str

    def row(self) -> Any:
        """Return the row as the database has it now.

        Returns:
            The model's instance.

        Raises:
            StargateError: there is none: the transaction was rolled back, or the row was cleaned
                up.
        """
        found = outbox_rows(self.using).filter(uuid=self.uuid).first()
        if found is None:
            raise StargateError(
                f"there is no outbox row {self.uuid} in {self.using!r}: its transaction was rolled "
                "back, or it was cleaned up"
            )
        return found

    def state(self) -> State:
        """Return the row's state now.

        Returns:
            ``pending``, ``recorded``, ``stored``, ``refused``, ``unknown`` or ``discarded``.

        Raises:
            StargateError: as :meth:`row`.

        Example:
            >>> with transaction.atomic():
            ...     handle = outbox.produce("one lamp", topic="orders")
            ...     handle.state().value
            'pending'
        """
        return State(self.row().state)

    async def astate(self) -> State:
        """Do as :meth:`state` does, from async code.

        Returns:
            As :meth:`state`.

        Raises:
            StargateError: as :meth:`row`.
        """
        return await sync_to_async(self.state)()
