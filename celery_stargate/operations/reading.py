"""How operators' questions read Redis: by bounded steps, and without writing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from redis import Redis

from celery_stargate.calls.runtime import Runtime
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.registry import LaneNames, RegistryKeys
from celery_stargate.model.buckets import bucket_tags
from celery_stargate.model.frame import label_in
from celery_stargate.model.settings import Settings
from celery_stargate.operations.records import StoredRecord

__all__ = [
    "STEP",
    "AssumedTimeout",
    "LaneReader",
    "OldestMessage",
    "batches",
    "configured_timeout",
    "owner_of",
    "read_oldest",
    "reader_of",
]

#: How many records one step reads at most, so that no step blocks Redis.
STEP = 200

#: Seconds from a call to its deadline, by lane and by whether a process waits for the outcome.
AssumedTimeout = Callable[[Lane, bool], float]

_Item = TypeVar("_Item")


class OldestMessage(NamedTuple):
    """The oldest message of a lane."""

    number: int
    #: None if its frame cannot be read.
    context: str | None


class LaneReader:
    """Reads the lanes of one prefix.

    Every method raises what redis-py raises when Redis is unavailable.

    Arguments:
        redis: a client of :meth:`~celery_stargate.lanes.connections.Connections.sync`.
        prefix: what all keys begin with (``stargate_prefix``).
        assumed_timeout: from which the age of a context is computed if its record does not tell
            when it was recorded.
    """

    def __init__(self, redis: Redis, prefix: str, assumed_timeout: AssumedTimeout) -> None:
        #: redis-py's types do not tell sync from asyncio.
        self.redis: Any = redis
        #: The registries of all buckets of lanes; the first has what belongs to no lane.
        self.registries = RegistryKeys.of_all(prefix)
        self._names = LaneNames()
        self._prefix = prefix
        self._assumed_timeout = assumed_timeout

    def now(self) -> float:
        """Return the server's time, epoch seconds."""
        seconds, microseconds = self.redis.time()
        return float(seconds + microseconds / 1e6)

    def key(self, lane: Lane, part: str) -> str:
        """Return the key of one part of a lane."""
        return lane.key(self._prefix, part)

    @property
    def registry(self) -> RegistryKeys:
        """The registry that has what belongs to no lane."""
        return self.registries[0]

    def registry_of(self, lane: Lane) -> RegistryKeys:
        """Return the registry that a lane is in."""
        return self.registries[lane.bucket(self._prefix)]

    def names(self) -> Iterator[tuple[Lane, float | None]]:
        """Return all lanes, and when each was last announced, epoch seconds.

        The lane of contexts without a message comes first; it always exists.
        """
        yield CONTEXTS_LANE, None
        for registry in self.registries:
            for page in self.pages(registry.key("lanes")):
                for name, announced in page:
                    for lane in self._names.read([name]):
                        if lane != CONTEXTS_LANE:
                            yield lane, announced

    def unregistered(self, max_steps: int) -> Iterator[Lane]:
        """Find lanes that hold contexts and are not in the registry: no worker sees them.

        It looks at the keys of the whole database, but at no more than a number of steps.

        Arguments:
            max_steps: how many steps of 200 keys it takes at most.
        """
        known = {lane for lane, _ in self.names()}
        plain, tags = bucket_tags(self._prefix)
        start, end = f"{plain}:{{", ":contexts" if tags else "}:contexts"
        # The prefix may hold characters that have a meaning in a pattern.
        pattern = f"{_escaped(start)}*{_escaped(end)}"
        cursor = 0
        for _ in range(max_steps):
            cursor, keys = self.redis.scan(cursor, match=pattern, count=STEP)
            for key in keys:
                name = key.decode()[len(start) : -len(end)]
                if tags:
                    name = name.partition("}:")[2]
                for lane in self._names.read([name.encode()]):
                    if lane not in known and self.key(lane, "contexts").encode() == key:
                        yield lane
            if cursor == 0:
                return

    def pages(self, key: str) -> Iterator[list[tuple[bytes, float]]]:
        """Return the members of a sorted set with their scores, lowest first, by bounded ranges."""
        lowest: float | str = "-inf"
        seen = 0
        while page := self.redis.zrangebyscore(
            key, lowest, "+inf", start=seen, num=STEP, withscores=True
        ):
            yield page
            last = page[-1][1]
            # Members of the same score may go on in the next page.
            same = sum(1 for _, score in page if score == last)
            seen = same + (seen if last == lowest else 0)
            lowest = last

    def age(
        self, lane: Lane, stored: StoredRecord, deadline: float | None, now: float
    ) -> tuple[float | None, bool]:
        """Return how long ago a context was recorded, and whether that is exact."""
        if stored.recorded_at is not None:
            return max(0.0, now - stored.recorded_at / 1000), True
        if deadline is None:
            return None, False
        assumed = self._assumed_timeout(lane, stored.record.inbox is not None)
        return max(0.0, now - (deadline / 1000 - assumed)), False


def _escaped(text: str) -> str:
    """Return a text as a pattern of Redis that matches just that."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)


def reader_of(runtime: Runtime) -> LaneReader:
    """Return what reads the lanes of an app.

    Arguments:
        runtime: of the app.
    """
    settings = runtime.settings
    return LaneReader(runtime.connections.sync(), settings.keyspace, configured_timeout(settings))


def owner_of(lease: bytes | None) -> str | None:
    """Return the owner that a lease names; None for no lease."""
    return None if lease is None else lease.decode().rpartition(":")[0]


def read_oldest(entries: Any) -> OldestMessage | None:
    """Read the first entry of a log."""
    if not entries:
        return None
    [(number, fields)] = entries
    code_and_frame, *rest = fields.items()
    labels = dict(rest)
    try:
        label = labels[b"l"].decode() if b"l" in labels else label_in(code_and_frame[1])
    except ValueError:
        return OldestMessage(int(number.split(b"-")[0]), None)
    place = labels.get(b"p", b"").decode()
    context = label.removesuffix(f"\t{place}") if place else label
    return OldestMessage(int(number.split(b"-")[0]), context)


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Split items into lists of a size, the last of which may be shorter."""
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def configured_timeout(settings: Settings) -> AssumedTimeout:
    """Return the timeout of calls that give none, by the settings.

    A caller that waits has ``stargate_produce_timeout``, any other its topic's delivery timeout.
    """

    def assumed(lane: Lane, waits: bool) -> float:
        if waits:
            return settings.produce_timeout
        if not lane.has_messages:
            return settings.options.delivery_timeout
        return settings.resolve(lane.topic)[1].delivery_timeout

    return assumed
