"""Inboxes: how the outcome of a call reaches the process that waits for it."""

from __future__ import annotations

from typing import NamedTuple

from celery_stargate.lanes.connections import Connections, store_errors, stream_entries
from celery_stargate.lanes.wire import encode_call
from celery_stargate.model.outcomes import CallOutcomes

__all__ = ["InboxEntry", "Inboxes"]

#: Seconds for which an inbox that nobody reads is kept.
_KEPT = 3600
#: How many outcomes one read returns at most.
_READ_COUNT = 100


class InboxEntry(NamedTuple):
    """One entry of an inbox."""

    #: The entry's id in the stream.
    entry: str
    #: The inbox, and the waiting call in it, as :attr:`Record.inbox` names them.
    address: str
    #: The outcome, as :func:`~celery_stargate.lanes.wire.decode_call` reads it.
    wire: bytes


class Inboxes:
    """The inboxes of all waiting processes: a stream in Redis for each.

    Arguments:
        connections: to the Redis that holds the lanes.
        prefix: what all keys begin with.
    """

    def __init__(self, connections: Connections, prefix: str) -> None:
        self._connections = connections
        self._prefix = prefix

    def notify(self, address: str, call: CallOutcomes) -> None:
        """Put what became of a call into the inbox of the process that waits for it.

        Arguments:
            address: the inbox, a slash, and the waiting call in it.

        Raises:
            StoreUnavailable: Redis did not answer within 5 s.
        """
        key = self._key(address.partition("/")[0])
        with store_errors(), self._connections.sync().pipeline(transaction=False) as pipeline:
            pipeline.xadd(key, {"to": address, "outcome": encode_call(call)})
            pipeline.expire(key, _KEPT)
            pipeline.execute()

    def subscribe(self, inbox: str, after: str, timeout: float) -> list[InboxEntry]:
        """Wait for outcomes in an inbox.

        Arguments:
            inbox: its name.
            after: the id of the last entry that was handled; older ones are deleted.
            timeout: seconds to wait at most.

        Returns:
            Up to 100 entries; none when the time is over.

        Raises:
            StoreUnavailable: Redis did not answer within 5 s.
        """
        key = self._key(inbox)
        with store_errors(), self._connections.sync().pipeline(transaction=False) as pipeline:
            pipeline.xtrim(key, minid=after, approximate=False)
            pipeline.xread({key: after}, count=_READ_COUNT, block=max(1, round(timeout * 1000)))
            _, streams = pipeline.execute()
        return [
            InboxEntry(entry.decode(), fields[b"to"].decode(), fields[b"outcome"])
            for _, entries in stream_entries(streams)
            for entry, fields in entries
        ]

    def _key(self, inbox: str) -> str:
        return f"{self._prefix}:inbox:{inbox}"
