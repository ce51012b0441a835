"""A view of lanes for people: which calls wait in them, and which of these may have been sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from celery_stargate.lanes.connections import Connections, store_errors
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record, decode_record, first_number, report_undecodable
from celery_stargate.support.bound import call_bound

__all__ = ["LaneView", "Waiting"]


class Waiting(NamedTuple):
    """A call that has no outcome yet."""

    record: Record
    #: Whether its first message may have been sent.
    sent: bool


class LaneView:
    """Looks into the lanes of one prefix; changes nothing.

    Every method raises :class:`StoreUnavailable` if Redis did not answer in bounded time.

    Arguments:
        connections: to the Redis that holds the lanes.
        prefix: what all keys begin with.
    """

    def __init__(self, connections: Connections, prefix: str) -> None:
        self._connections = connections
        self._prefix = prefix

    def owned(self, lanes: Sequence[Lane], owner: str) -> list[Lane]:
        """Return the lanes whose lease is held by an owner whose name begins so."""
        begin = owner.encode()
        with (
            call_bound(),
            store_errors(),
            self._connections.sync().pipeline(transaction=False) as pipeline,
        ):
            for lane in lanes:
                pipeline.get(lane.key(self._prefix, "lease"))
            leases = pipeline.execute()
        found = zip(lanes, leases, strict=True)
        return [lane for lane, lease in found if lease is not None and lease.startswith(begin)]

    def waiting(self, lane: Lane, limit: int) -> list[Waiting]:
        """Return the calls of a lane that wait, those whose deadline is next first."""
        key = lane.key(self._prefix, "deadlines")
        with call_bound(), store_errors():
            contexts: Any = self._connections.sync().zrange(key, 0, limit - 1)
        return list(self._read(lane, contexts))

    def find(self, lane: Lane, contexts: Sequence[str]) -> list[Waiting]:
        """Return those of some calls that are in a lane."""
        return list(self._read(lane, contexts))

    def _read(self, lane: Lane, contexts: Sequence[str | bytes]) -> Iterator[Waiting]:
        if not contexts:
            return
        redis = self._connections.sync()
        with call_bound(), store_errors():
            sent: Any = redis.hget(lane.key(self._prefix, "meta"), "sent")
            records: Any = redis.hmget(lane.key(self._prefix, "contexts"), list(contexts))
        for stored in records:
            if stored is None:
                continue
            try:
                record = decode_record(stored)
                first = first_number(stored)
            except ValueError as error:
                report_undecodable(lane, error)
            else:
                yield Waiting(record, 0 < first <= int(sent or 0))
