"""Record calls in their lanes. From then on each gets its outcome, whichever process dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextvars import copy_context
from typing import Any

from celery_stargate import observers
from celery_stargate.calls.prepare import Call
from celery_stargate.lanes.loop_outbox import LoopOutbox
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.puts import AskedPut
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.waiter import Waiter
from celery_stargate.model.options import ProducerOptions
from celery_stargate.observers import MessageRecorded
from celery_stargate.support.bound import bounded, call_bound
from celery_stargate.support.daemon_call import await_in_daemon

__all__ = ["Recorder"]

#: How much longer the context of a list lives than its messages in other lanes, in seconds: it
#: collects their outcomes.
_COLLECTING = 5.0


class Recorder:
    """Records calls in the lanes of one app.

    Arguments:
        outbox: where they are put.
        usual: the options of a topic that has none of its own.
    """

    def __init__(self, outbox: Outbox, usual: ProducerOptions) -> None:
        self._outbox = outbox
        self._usual = usual

    def put(
        self,
        call: Call,
        record: Record,
        *,
        timeout: float,
        tombstone: float = 0.0,
        exclusive: bool = False,
    ) -> None:
        """Record a call.

        Arguments:
            record: of the call, made by :meth:`Call.record`.
            timeout: seconds until its deadline.
            tombstone: seconds for which a repeat is recognized after the call has ended.
            exclusive: refuse a context that is pending already.

        Raises:
            LaneFull: a lane holds as many messages as it may.
            ContextInUse: the context is pending, and ``exclusive`` was asked for.
            StoreUnavailable: Redis did not answer in bounded time.
        """
        with call.ends_trace(), call_bound():
            recorded = self._put(call, record, timeout, tombstone, exclusive)
        if recorded and observers.anybody():
            _tell([call], [record])

    async def begin(
        self,
        outbox: LoopOutbox,
        call: Call,
        record: Record,
        waiter: Waiter,
        *,
        timeout: float,
        bound: float,
        fresh: bool = False,
    ) -> None:
        """Begin to record a call from an event loop, as :meth:`put` does with ``exclusive``.

        A list that spans lanes is recorded in a thread: it takes many steps.

        Arguments:
            outbox: the lanes, as the calls of the running event loop use them.
            waiter: is told what comes of it.
            bound: seconds until it is told that there was no answer.
            fresh: whether the context is a new id that nobody else has.

        Raises:
            As :meth:`put`; then the waiter is told nothing.
        """
        if len(call.parts) > 1 and len(call.lanes) > 1:

            def put() -> None:
                with bounded(bound):
                    self.put(call, record, timeout=timeout, exclusive=True)

            await await_in_daemon(put, "stargate-record")
            # Which number it got matters to nobody here.
            waiter.recorded(1)
            return
        asked = AskedPut(
            call.parts[0].lane,
            record,
            [("", part.frame) for part in call.parts],
            timeout,
            call.options.max_backlog,
            _once_window(call),
            exclusive=True,
            fresh=fresh,
            options=self._differing(call),
        )
        if call.trace is not None or observers.anybody():
            # It is told by the task that sends or reads for all, in the call's own context.
            own = copy_context()
            waiter.on_told = lambda error: own.run(_told, call, record, error)
        await outbox.begin(asked, waiter, bound)

    def _put(
        self, call: Call, record: Record, timeout: float, tombstone: float, exclusive: bool
    ) -> bool:
        """Record a call; return False for a repeat of one that has its outcome."""
        home, *others = call.lanes
        tombstone, limit = max(tombstone, _once_window(call)), call.options.max_backlog
        common: dict[str, Any] = {"tombstone": tombstone, "options": self._differing(call)}
        if not others:
            first = self._outbox.put(
                home,
                record,
                [("", part.frame) for part in call.parts],
                timeout=timeout,
                max_backlog=limit,
                exclusive=exclusive,
                **common,
            )
            return bool(first)
        # The list spans lanes. Its context holds a place for each message; each message is a
        # context of its own, whose outcome settles one place.
        counts = Counter(part.lane for part in call.parts)
        room = self._outbox.reserve(counts, limit) if limit else 0
        first = self._outbox.put(
            home,
            record,
            [("", b"")] * len(call.parts),
            timeout=timeout + _COLLECTING,
            exclusive=exclusive,
            **common,
        )
        if not first:
            # A repeat of a call that has its outcome: its messages are not sent again.
            return False
        for place, part in enumerate(call.parts):
            parent = home.name, call.context, place
            child = Record(part.label, parent=parent, parent_first=first)
            given: Any = {"timeout": timeout, "max_backlog": room, **common}
            self._outbox.put(part.lane, child, [("", part.frame)], **given)
        return True

    def put_many(
        self,
        calls: Sequence[Call],
        records: Iterable[Record],
        timeout: float,
        *,
        tombstone: float = 0.0,
    ) -> None:
        """Record calls of one message each, in their order.

        Arguments:
            calls: to one topic.
            records: one for each call.
            timeout: seconds until the deadline of each.
            tombstone: seconds for which a repeat is recognized after a call has ended.

        Raises:
            LaneFull: a lane would hold more messages than it may; nothing was recorded.
            StoreUnavailable: Redis did not answer in bounded time; the text says how many are
                recorded.
        """
        made = list(records)
        puts = [
            (call.parts[0].lane, record, call.parts[0].frame)
            for call, record in zip(calls, made, strict=True)
        ]
        first = calls[0]
        # The calls of one list share one trace.
        with first.ends_trace():
            self._outbox.put_many(
                puts,
                timeout=timeout,
                max_backlog=first.options.max_backlog,
                tombstone=max(tombstone, _once_window(first)),
                options=self._differing(first),
            )
        if observers.anybody():
            _tell(calls, made)

    def _differing(self, call: Call) -> dict[str, Any]:
        """Return the options that a worker which does not know the topic must be told."""
        return {} if call.options is self._usual else call.options.differing(self._usual)


def _once_window(call: Call) -> float:
    """Return for how many seconds a call is known after its end, so that it is recorded once."""
    options = call.options
    return options.once_window if options.delivery == "effectively_once" else 0.0


def _told(call: Call, record: Record, error: BaseException | None) -> None:
    """End the trace of a call, and tell observers if it was recorded."""
    call.end_trace(error)
    if error is None and observers.anybody():
        _tell([call], [record])


def _tell(calls: Sequence[Call], records: Sequence[Record]) -> None:
    """Tell observers of calls that were recorded."""
    found = [
        MessageRecorded(
            context=call.context,
            topic=str(call.topic),
            lanes=tuple(lane.name for lane in call.lanes),
            messages=len(call.parts),
            task=record.task,
        )
        for call, record in zip(calls, records, strict=True)
    ]
    observers.tell(lambda each: each.recorded(found))
