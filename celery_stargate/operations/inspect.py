"""Ask about lanes and workers: what they hold, and who owns them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.registry import KINDS
from celery_stargate.operations.reading import (
    LaneReader,
    OldestMessage,
    batches,
    owner_of,
    read_oldest,
)
from celery_stargate.operations.records import read_record
from celery_stargate.operations.views import LaneView, Rates, StatusView, WorkerView

__all__ = ["LaneInspector", "rates", "totals"]

#: How many lanes one step looks at; for each it reads one message, which may be large.
_LANES = 20
#: How often it looks for the oldest message of a lane that is busy.
_LOOKS = 8


class LaneInspector:
    """Answers questions about lanes and workers.

    Every method raises what redis-py raises when Redis is unavailable.

    Arguments:
        reader: reads the lanes.
    """

    def __init__(self, reader: LaneReader) -> None:
        self._reader = reader

    def lanes(self, topic: str | None = None) -> Iterator[LaneView]:
        """Return all lanes, or those of one topic.

        The lane of contexts without a message is left out while it is empty and without an owner.

        Arguments:
            topic: its full name.
        """
        wanted = ((lane, at) for lane, at in self._reader.names() if topic in (None, lane.topic))
        for part in batches(wanted, _LANES):
            for view in self._look_at(part):
                if view.topic != CONTEXTS_LANE.topic or view.contexts or view.owner:
                    yield view

    def workers(self, lanes: Iterable[LaneView] | None = None) -> list[WorkerView]:
        """Return the processes that own lanes or may, with how many they own.

        Arguments:
            lanes: all lanes, if they were read just now.
        """
        owned: Counter[str] = Counter()
        backlog: Counter[str] = Counter()
        for lane in self.lanes() if lanes is None else lanes:
            if lane.owner is not None and not lane.paused:
                owned[lane.owner] += 1
                backlog[lane.owner] += lane.backlog
        now = self._reader.now()
        alive: dict[str, float] = {}
        # On a Cluster each owner is in the registry of each bucket.
        for registry in self._reader.registries:
            for kind in KINDS:
                for page in self._reader.pages(registry.key(kind)):
                    for name, until in page:
                        known = alive.get(name.decode(), -math.inf)
                        alive[name.decode()] = max(known, until / 1000 - now)
        return [
            WorkerView(
                worker=name, alive_seconds=alive.get(name), lanes=owned[name], backlog=backlog[name]
            )
            for name in sorted({*alive, *owned})
        ]

    def lanes_and_workers(self, topic: str | None = None) -> tuple[list[LaneView], int]:
        """Return the lanes, and how many workers are alive.

        Arguments:
            topic: only its lanes; by its full name.
        """
        lanes = list(self.lanes(topic))
        alive = sum(1 for worker in self.workers(lanes) if (worker.alive_seconds or 0) > 0)
        return lanes, alive

    def status(self) -> StatusView:
        """Return the totals of all lanes."""
        return totals(*self.lanes_and_workers())

    def _look_at(self, lanes: Sequence[tuple[Lane, float | None]]) -> Iterator[LaneView]:
        now = self._reader.now()
        with self._reader.redis.pipeline(transaction=False) as pipeline:
            for lane, _ in lanes:
                pipeline.xlen(self._reader.key(lane, "log"))
                pipeline.hlen(self._reader.key(lane, "contexts"))
                pipeline.zcard(self._reader.key(lane, "due"))
                pipeline.zrange(self._reader.key(lane, "deadlines"), 0, 0, withscores=True)
                pipeline.get(self._reader.key(lane, "lease"))
                pipeline.pttl(self._reader.key(lane, "lease"))
                pipeline.hmget(self._reader.key(lane, "meta"), "last", "sent")
                pipeline.zcard(self._reader.key(lane, "dead"))
                pipeline.xrange(self._reader.key(lane, "log"), count=1)
            replies = batches(pipeline.execute(), 9)
            looked = list(zip(lanes, replies, strict=True))
        ages = self._oldest_ages({lane: read_oldest(reply[-1]) for (lane, _), reply in looked}, now)
        for (lane, announced), reply in looked:
            backlog, contexts, settled, first, lease, left, numbers, dead, _ = reply
            last, sent = (int(number or 0) for number in numbers)
            unsent = min(backlog, max(0, last - sent))
            age, exact = ages[lane]
            yield LaneView(
                lane=lane.name,
                topic=lane.topic,
                index=lane.index,
                owner=owner_of(lease),
                lease_seconds=left / 1000 if left > 0 else None,
                backlog=backlog,
                unsent=unsent,
                sent=backlog - unsent,
                contexts=contexts,
                settled=settled,
                recorded_total=last,
                sent_total=sent,
                oldest_age_seconds=age,
                oldest_age_exact=exact,
                next_deadline_seconds=first[0][1] / 1000 - now if first else None,
                announced_seconds=None if announced is None else max(0.0, now - announced),
                dead=dead,
            )

    def _oldest_ages(
        self, oldest: dict[Lane, OldestMessage | None], now: float
    ) -> dict[Lane, tuple[float | None, bool]]:
        """Return the age of the oldest message of each lane, and whether it is exact.

        On a busy lane the message may be done before its record is read; then the next one is
        looked at, a few times.
        """
        ages: dict[Lane, tuple[float | None, bool]] = defaultdict(lambda: (None, False))
        for _ in range(_LOOKS):
            known = [(lane, each.context) for lane, each in oldest.items() if each and each.context]
            gone = []
            for lane, stored, deadline in self._records(known):
                record = read_record(stored) if stored else None
                if record is not None:
                    ages[lane] = self._reader.age(lane, record, deadline, now)
                elif stored is None:
                    gone.append(lane)
            if not gone:
                break
            oldest = self._oldest_of(gone)
        return ages

    def _records(
        self, known: Sequence[tuple[Lane, str | None]]
    ) -> Iterator[tuple[Lane, bytes | None, float | None]]:
        """Return record and deadline of a context of each lane."""
        with self._reader.redis.pipeline(transaction=False) as pipeline:
            for lane, context in known:
                pipeline.hget(self._reader.key(lane, "contexts"), context)
                pipeline.zscore(self._reader.key(lane, "deadlines"), context)
            found = batches(pipeline.execute(), 2)
        for (lane, _), (stored, deadline) in zip(known, found, strict=True):
            yield lane, stored, deadline

    def _oldest_of(self, lanes: Sequence[Lane]) -> dict[Lane, OldestMessage | None]:
        """Read the first message of each lane."""
        with self._reader.redis.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                pipeline.xrange(self._reader.key(lane, "log"), count=1)
            found = pipeline.execute()
        return {lane: read_oldest(each) for lane, each in zip(lanes, found, strict=True)}


def totals(lanes: Iterable[LaneView], workers: int) -> StatusView:
    """Add up lanes.

    Arguments:
        workers: how many are alive.
    """
    all_lanes = list(lanes)
    oldest = max(
        (lane for lane in all_lanes if lane.oldest_age_seconds is not None),
        key=lambda lane: lane.oldest_age_seconds or 0.0,
        default=None,
    )
    deadlines = [
        lane.next_deadline_seconds for lane in all_lanes if lane.next_deadline_seconds is not None
    ]
    return StatusView(
        workers=workers,
        lanes=len(all_lanes),
        lanes_without_owner=sum(1 for lane in all_lanes if lane.needs_owner),
        lanes_paused=sum(1 for lane in all_lanes if lane.paused),
        backlog=sum(lane.backlog for lane in all_lanes),
        unsent=sum(lane.unsent for lane in all_lanes),
        sent=sum(lane.sent for lane in all_lanes),
        contexts=sum(lane.contexts for lane in all_lanes),
        settled=sum(lane.settled for lane in all_lanes),
        recorded_total=sum(lane.recorded_total for lane in all_lanes),
        done_total=sum(lane.done_total for lane in all_lanes),
        oldest_age_seconds=oldest.oldest_age_seconds if oldest else None,
        oldest_age_exact=oldest.oldest_age_exact if oldest else False,
        next_deadline_seconds=min(deadlines, default=None),
        dead=sum(lane.dead for lane in all_lanes),
    )


def rates(before: StatusView, after: StatusView, seconds: float) -> Rates:
    """Return how fast messages came and went between two looks.

    Arguments:
        seconds: between the looks. A lane that was retired meanwhile counts for nothing.
    """
    span = max(seconds, 1e-3)
    return Rates(
        interval_seconds=seconds,
        recorded_per_second=max(0, after.recorded_total - before.recorded_total) / span,
        done_per_second=max(0, after.done_total - before.done_total) / span,
    )
