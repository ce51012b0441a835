"""Ask about contexts: which are pending, and what is known of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from celery_stargate.lanes.lane import Lane
from celery_stargate.operations.reading import STEP, LaneReader, batches, owner_of, read_oldest
from celery_stargate.operations.records import (
    StoredRecord,
    read_outcomes,
    read_record,
    task_names,
)
from celery_stargate.operations.views import ContextDetail, ContextState, ContextView

__all__ = ["ContextInspector"]


class ContextInspector:
    """Answers questions about contexts.

    Every method raises what redis-py raises when Redis is unavailable.

    Arguments:
        reader: reads the lanes.
    """

    def __init__(self, reader: LaneReader) -> None:
        self._reader = reader

    def pending(
        self,
        topic: str | None = None,
        *,
        state: ContextState | None = None,
        older_than: float | None = None,
    ) -> Iterator[ContextView]:
        """Return the contexts that are not finished, lane by lane, the next deadline first.

        Contexts that come or go meanwhile may be missing.

        Arguments:
            topic: only those of this topic, by its full name.
            state: only those in this state.
            older_than: only those that were recorded this many seconds ago or earlier.
        """
        for lane, _ in self._reader.names():
            if topic not in (None, lane.topic):
                continue
            for view in self._pending_in(lane, state):
                if state not in (None, view.state):
                    continue
                if older_than is not None and (view.age_seconds or 0.0) < older_than:
                    continue
                yield view

    def find(self, context: str) -> ContextDetail | None:
        """Return one context with all that is known of it; None if no lane has it."""
        lane = self.lane_of(context)
        return None if lane is None else self._detail(lane, context)

    def lane_of(self, context: str) -> Lane | None:
        """Return the lane that has a context; None if none has it."""
        for part in batches((lane for lane, _ in self._reader.names()), STEP):
            with self._reader.redis.pipeline(transaction=False) as pipeline:
                for lane in part:
                    pipeline.hexists(self._reader.key(lane, "contexts"), context)
                found = pipeline.execute()
            for lane, known in zip(part, found, strict=True):
                if known:
                    return lane
        return None

    def _pending_in(self, lane: Lane, state: ContextState | None) -> Iterator[ContextView]:
        if state is not ContextState.SETTLED:
            for page in self._reader.pages(self._reader.key(lane, "deadlines")):
                yield from self._views(lane, [(name, at) for name, at in page])
        if state in (None, ContextState.SETTLED):
            for page in self._reader.pages(self._reader.key(lane, "due")):
                yield from self._views(lane, [(name, None) for name, _ in page])

    def _views(
        self, lane: Lane, found: Sequence[tuple[bytes, float | None]]
    ) -> Iterator[ContextView]:
        """Return contexts of a lane, each with its deadline (None for one that is settled)."""
        now = self._reader.now()
        with self._reader.redis.pipeline(transaction=False) as pipeline:
            pipeline.hmget(self._reader.key(lane, "contexts"), [name for name, _ in found])
            pipeline.hget(self._reader.key(lane, "meta"), "sent")
            records, sent = pipeline.execute()
        for (name, deadline), stored in zip(found, records, strict=True):
            # One that was finished meanwhile has no record.
            if stored is not None:
                yield self._view(lane, name.decode(), stored, deadline, int(sent or 0), now)

    def _view(
        self,
        lane: Lane,
        context: str,
        stored: bytes,
        deadline: float | None,
        sent: int,
        now: float,
    ) -> ContextView:
        found = read_record(stored)
        left = None if deadline is None else deadline / 1000 - now
        if found is None:
            return ContextView(
                context=context,
                lane=lane.name,
                topic=lane.topic,
                state=ContextState.UNREADABLE,
                deadline_seconds=left,
                age_seconds=None,
                age_exact=False,
                messages=0,
                number=0,
                task=None,
                on_ack=None,
                on_error=None,
                waits=False,
                parent=None,
            )
        age, exact = self._reader.age(lane, found, deadline, now)
        record = found.record
        return ContextView(
            context=context,
            lane=lane.name,
            topic=lane.topic,
            state=_state(found, sent, settled=deadline is None),
            deadline_seconds=left,
            age_seconds=age,
            age_exact=exact,
            messages=found.count,
            number=max(0, found.first),
            task=record.task,
            on_ack=task_names(record.on_ack),
            on_error=task_names(record.on_error),
            waits=record.inbox is not None,
            parent=None if record.parent is None else record.parent[1],
        )

    def _detail(self, lane: Lane, context: str) -> ContextDetail | None:
        now = self._reader.now()
        with self._reader.redis.pipeline(transaction=False) as pipeline:
            pipeline.hget(self._reader.key(lane, "contexts"), context)
            pipeline.zscore(self._reader.key(lane, "deadlines"), context)
            pipeline.hget(self._reader.key(lane, "outcomes"), context)
            pipeline.hget(self._reader.key(lane, "meta"), "sent")
            pipeline.get(self._reader.key(lane, "lease"))
            pipeline.xrange(self._reader.key(lane, "log"), count=1)
            stored, deadline, outcome, sent, lease, first = pipeline.execute()
        if stored is None:
            return None
        view = self._view(lane, context, stored, deadline, int(sent or 0), now)
        oldest = read_oldest(first)
        outcomes = (
            read_outcomes(outcome.partition(b"\n")[2])
            if outcome is not None
            else self._partial_outcomes(lane, context, view.messages)
        )
        fields = {name: getattr(view, name) for name in view.__struct_fields__}
        return ContextDetail(
            **fields,
            owner=owner_of(lease),
            ahead=max(0, view.number - oldest.number) if view.number and oldest else None,
            outcomes=outcomes,
        )

    def _partial_outcomes(self, lane: Lane, context: str, count: int) -> list[dict[str, Any]]:
        """Return the outcomes of the messages of a list that is not settled; up to 200."""
        if count <= 1:
            return []
        places = range(min(count, STEP))
        names = [f"{context}\n{place}" for place in places]
        found = self._reader.redis.hmget(self._reader.key(lane, "outcomes"), names)
        return [
            {"place": place, **each}
            for place, stored in zip(places, found, strict=True)
            if stored is not None
            for each in read_outcomes(b"[" + stored + b"]")
        ]


def _state(stored: StoredRecord, sent: int, *, settled: bool) -> ContextState:
    if settled:
        return ContextState.SETTLED
    if stored.first <= 0:
        return ContextState.OPEN
    return ContextState.SENT if stored.first <= sent else ContextState.UNSENT
