"""What one lane has in flight: the window, and the session that fills it."""

from __future__ import annotations

from collections.abc import Iterable

from celery_stargate.pulsar.producer import Producer
from celery_stargate.pulsar.session import Session
from celery_stargate.pulsar.window import Window

__all__ = ["InFlight"]


class InFlight:
    """The messages without a receipt, over the connection that there is now, if any.

    Arguments:
        window: bounds them, over all connections of the lane.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self._producer: Producer | None = None
        self._session: Session | None = None

    def __len__(self) -> int:
        return len(self.window)

    @property
    def descriptor(self) -> int | None:
        """The file descriptor of the lane's socket, where it has one."""
        return None if self._producer is None else self._producer.descriptor

    @property
    def misaligned(self) -> bool:
        """Whether the session is about to find that Pulsar's numbers are not the lane's.

        It may have to change the lane's generation first: without that the next owner would treat
        messages to resend as duplicates.
        """
        return self._session is not None and self._session.misaligned

    def opening(self, producer: Producer) -> None:
        """Note the producer of the next connection."""
        self._producer = producer

    def opened(self, session: Session) -> None:
        """Note the session of this connection."""
        self._session = session

    def closed(self) -> None:
        """Forget the session and what had no receipt: the next session reads that again."""
        self._session = None
        self.window.clear()

    def recheck_lease(self) -> None:
        """Let the session ask again whether it may send."""
        if self._session is not None:
            self._session.recheck()

    def forget(self, messages: Iterable[tuple[str, int]]) -> None:
        """Stop waiting for the receipts of messages that have their outcomes.

        Arguments:
            messages: label and number of each.
        """
        if self._session is not None:
            self._session.forget(messages)
