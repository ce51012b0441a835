"""Pause a topic: an operator holds the leases of its lanes, so that no owner sends.

What is recorded waits. Receipts of messages that were in flight still count. A pause ends by
itself, so that nothing waits for ever for an operator who forgot; deadlines that pass meanwhile
are told when it ends.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import OutOfMemoryError

from celery_stargate.lanes.lane import PAUSED_BY, Lane
from celery_stargate.lanes.scripts import LANE_PARTS, Argument, lane_keys, script_on
from celery_stargate.operations.audit import Audit, operator
from celery_stargate.operations.reading import LaneReader

__all__ = ["Pauses"]

_LEASE = LANE_PARTS.index("lease")
#: About how many events of the registry are kept, as the registry itself does.
_EVENTS_KEPT = 1000


class Pauses:
    """Pauses and resumes topics, and notes who did it.

    Every method raises what redis-py raises when Redis is unavailable.

    Arguments:
        reader: reads the lanes.
        prefix: what all keys begin with.
    """

    def __init__(self, reader: LaneReader, prefix: str) -> None:
        self._reader = reader
        self._prefix = prefix
        self._audit = Audit(reader.redis, reader.registry)
        self._lease = script_on(reader.redis, "lease")
        self._release = script_on(reader.redis, "release")
        self._announce = script_on(reader.redis, "registry/announce")

    def pause(self, topic: str, lanes: int, seconds: float) -> list[str]:
        """Stop the sending of a topic; return the names of its lanes.

        An owner finds out at its next step in Redis, and sends nothing after that. A pause of a
        topic that is paused lasts from now on. A lane that nobody has used is announced, so that
        whoever looks at the lanes sees that it is paused.

        Arguments:
            topic: its full name.
            lanes: how many lanes it has by the settings; lanes beyond these are paused, too.
            seconds: until the pause ends by itself.
        """
        paused = []
        owner = f"{PAUSED_BY}{operator()}"
        for lane in self._lanes(topic, lanes):
            arguments: list[Argument] = [owner, round(seconds * 1000), uuid.uuid4().hex]
            try:
                # In one step: between them a worker would take the lane.
                self._take(lane, arguments, transaction=True)
                self._make_known(lane)
            except OutOfMemoryError:
                # A full Redis takes no transaction. All that are used are known.
                self._take(lane, arguments, transaction=False)
            paused.append(lane.name)
        self._audit.note("pause", {"topic": topic, "lanes": len(paused), "seconds": seconds})
        return paused

    def resume(self, topic: str, lanes: int) -> list[str]:
        """End the pause of a topic; return the names of the lanes that were paused.

        Workers take the lanes at once.

        Arguments:
            topic: its full name.
            lanes: how many lanes it has by the settings.
        """
        resumed = []
        for lane in self._lanes(topic, lanes):
            keys = lane_keys(self._prefix, lane, "operator")
            lease = self._reader.redis.get(keys[_LEASE])
            if lease is None or not lease.decode().startswith(PAUSED_BY):
                continue
            if self._release(keys=keys, args=[lease]):
                # In a full Redis they find it at their next look.
                with suppress(OutOfMemoryError):
                    self._announce_free(lane)
                resumed.append(lane.name)
        self._audit.note("resume", {"topic": topic, "lanes": len(resumed)})
        return resumed

    def _take(self, lane: Lane, arguments: Sequence[Argument], *, transaction: bool) -> None:
        """Take a lane's lease, whoever has it."""
        keys = lane_keys(self._prefix, lane, "operator")
        with self._reader.redis.pipeline(transaction=transaction) as pipeline:
            pipeline.delete(keys[_LEASE])
            self._lease(keys=keys, args=arguments, client=pipeline)
            pipeline.execute()

    def _make_known(self, lane: Lane) -> None:
        registry = self._reader.registry_of(lane)
        self._announce(keys=[registry.key("lanes"), registry.key("events")], args=[lane.name])

    def _lanes(self, topic: str, lanes: int) -> Iterator[Lane]:
        configured = [Lane(topic, index) for index in range(lanes)]
        yield from configured
        for lane, _ in self._reader.names():
            if lane.topic == topic and lane not in configured:
                yield lane

    def _announce_free(self, lane: Lane) -> None:
        fields: dict[Any, Any] = {"free": lane.name}
        self._reader.redis.xadd(
            self._reader.registry_of(lane).key("events"),
            fields,
            maxlen=_EVENTS_KEPT,
            approximate=True,
        )
