"""Change contexts by hand: settle them, or do the effects of those that are settled."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Literal

import msgspec
from redis.exceptions import OutOfMemoryError, WatchError

from celery_stargate import observers
from celery_stargate.effects.run import Effects
from celery_stargate.lanes.dead_letters import NO_DEAD_LETTERS, DeadLetterWriter
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import GRACE_MS, Outbox
from celery_stargate.lanes.record import Settled, decode_settled, encode_outcome
from celery_stargate.lanes.scripts import script_on
from celery_stargate.lanes.wire import read_answer
from celery_stargate.model.dead_letters import DeadLetterRules
from celery_stargate.model.entry import label_of
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.operations.audit import Audit, operator
from celery_stargate.operations.contexts import ContextInspector
from celery_stargate.operations.reading import STEP, LaneReader, batches
from celery_stargate.operations.records import StoredRecord, read_record

__all__ = ["Actions", "Change", "Changed"]

#: How often a cancellation looks again if the lane changes between look and step.
_TRIES = 50
#: How many messages of a list one script settles at most: each may become a dead letter, and a
#: script must not hold Redis for long.
_PARTS = 20

#: Makes the outcome of one message: whether it may have been sent.
_MakeOutcome = Callable[[bool], Outcome]


class Changed(StrEnum):
    """What became of an action on one context."""

    DONE = "done"  #: it was done
    MISSING = "missing"  #: no lane has the context
    SETTLED = "settled"  #: it has its outcome already
    PENDING = "pending"  #: it has no outcome yet, so there is nothing to repeat
    UNREADABLE = "unreadable"  #: its record cannot be read
    FAILED = "failed"  #: its effects failed; an owner repeats them


class Change(msgspec.Struct, frozen=True):
    """The answer of an action on one context; its fields are the documented JSON form."""

    #: Which context.
    context: str
    #: ``done``, ``missing``, ``settled``, ``pending``, ``unreadable`` or ``failed``.
    result: Changed
    #: The outcome that it was given: ``stored``, ``refused`` or ``unknown``.
    status: str | None = None


class Actions:
    """Acts on contexts, and notes who did what.

    Every method raises what redis-py raises when Redis is unavailable. An action that is repeated
    changes nothing more.

    Arguments:
        reader: reads the lanes.
        outbox: the lanes, as callers use them.
        effects: does the effects of contexts that are settled here.
        prefix: what all keys begin with.
        rules: which messages become dead letters; by default none do.
    """

    def __init__(
        self,
        reader: LaneReader,
        outbox: Outbox,
        effects: Effects,
        prefix: str,
        rules: DeadLetterRules = NO_DEAD_LETTERS,
    ) -> None:
        self._reader = reader
        self._contexts = ContextInspector(reader)
        self._outbox = outbox
        self._effects = effects
        self._prefix = prefix
        self._rules = rules
        self._audit = Audit(reader.redis, reader.registry)
        self._settle_script = script_on(reader.redis, "settle")

    def cancel(self, context: str, reason: str = "") -> Change:
        """Refuse a context: nothing of it is sent any more, and ``on_error`` is told.

        A message that may have been sent gets ``unknown``, any other ``refused``.

        Arguments:
            context: which one.
            reason: told in the failure, after who cancelled it.
        """
        words = f"cancelled by {operator()}" + (f": {reason}" if reason else "")
        return self._change("cancel", context, "cancelled", words, None)

    def release(
        self, context: str, status: Literal["stored", "refused"], reason: str = ""
    ) -> Change:
        """Give a context the outcome that the operator knows.

        Arguments:
            context: which one.
            status: ``stored``: it is in the topic; ``refused``: it is not.
            reason: told in the failure, after who released it.
        """
        words = f"released by {operator()}" + (f": {reason}" if reason else "")
        return self._change("release", context, "released", words, status)

    def retry(self, context: str) -> Change:
        """Do the effects of a settled context now: its result and its callbacks.

        An owner does the same once in a while; for a context that is pending there is nothing to
        repeat, because its owner sends it until its deadline.
        """
        lane = self._contexts.lane_of(context)
        if lane is None:
            return Change(context, Changed.MISSING)
        with self._reader.redis.pipeline(transaction=False) as pipeline:
            pipeline.hget(self._reader.key(lane, "contexts"), context)
            pipeline.hget(self._reader.key(lane, "outcomes"), context)
            stored, outcome = pipeline.execute()
        if stored is None:
            return Change(context, Changed.MISSING)
        if outcome is None:
            return Change(context, Changed.PENDING)
        topic = lane.topic if lane.has_messages else None
        try:
            settled = decode_settled(stored, outcome.partition(b"\n")[2], topic)
        except ValueError:
            return Change(context, Changed.UNREADABLE)
        change = self._finish(lane, settled)
        self._audit.note("retry", {"context": context, "result": change.result})
        return change

    def _change(
        self,
        what: str,
        context: str,
        code: str,
        words: str,
        status: Literal["stored", "refused"] | None,
    ) -> Change:
        """Settle a context by hand, do its effects, and note that.

        Arguments:
            what: the action's name.
            code: of the failure.
            words: the failure's reason.
            status: None for what the lane knows: ``unknown`` if it was sent, else ``refused``.
        """
        lane = self._contexts.lane_of(context)
        if lane is None:
            return Change(context, Changed.MISSING)
        topic = lane.topic if lane.has_messages else None

        def make(sent: bool) -> Outcome:
            if status == "stored":
                return Receipt(context=context, topic=topic)
            told = status or ("unknown" if sent else "refused")
            return Failure(context=context, topic=topic, status=told, reason=words, code=code)

        change = self._settle_all(lane, context, make)
        if change.result is not Changed.MISSING:
            self._audit.note(what, {"context": context, **_told(change, words)})
        return change

    def _settle_all(self, lane: Lane, context: str, make: _MakeOutcome) -> Change:
        stored = self._reader.redis.hget(self._reader.key(lane, "contexts"), context)
        if stored is None:
            return Change(context, Changed.MISSING)
        record = read_record(stored)
        if record is None:
            return Change(context, Changed.UNREADABLE)
        if record.first <= 0 and record.count:
            return self._settle_spread(lane, context, record, make)
        return self._settle(lane, context, record, make)

    def _settle_spread(
        self, lane: Lane, context: str, record: StoredRecord, make: _MakeOutcome
    ) -> Change:
        """Settle the messages of a list that spans lanes; the last one settles the list."""
        last = Change(context, Changed.SETTLED)
        for place, lane_of_part, part in self._parts(lane, context, record.count):
            child = label_of(context, place)

            def make_part(sent: bool, child: str = child) -> Outcome:
                return msgspec.structs.replace(make(sent), context=child)

            change = self._settle(lane_of_part, child, part, make_part)
            if change.result is Changed.DONE:
                last = Change(context, Changed.DONE, change.status)
        return last

    def _parts(
        self, home: Lane, context: str, count: int
    ) -> Iterator[tuple[int, Lane, StoredRecord]]:
        """Return the messages of a list that spans lanes, as far as they are pending."""
        lanes = [lane for lane, _ in self._reader.names() if lane.topic == home.topic]
        for places in batches(range(count), STEP):
            labels = [label_of(context, place) for place in places]
            for lane in lanes:
                found = self._reader.redis.hmget(self._reader.key(lane, "contexts"), labels)
                for place, stored in zip(places, found, strict=True):
                    record = read_record(stored) if stored else None
                    if record is not None:
                        yield place, lane, record

    def _settle(self, lane: Lane, context: str, record: StoredRecord, make: _MakeOutcome) -> Change:
        """Settle the messages of a context, some at a time; the last ones settle it."""
        change = Change(context, Changed.SETTLED)
        for places in batches(range(max(1, record.count)), _PARTS):
            change = self._settle_some(lane, context, record, places, make)
            if change.result is not Changed.SETTLED:
                break
        return change

    def _settle_some(
        self,
        lane: Lane,
        context: str,
        record: StoredRecord,
        places: Sequence[int],
        make: _MakeOutcome,
    ) -> Change:
        """Settle some messages of a context in one step, in which none of them can be sent."""
        meta = self._reader.key(lane, "meta")
        # 0 or less for a context without messages here.
        numbers = [record.first + place for place in places]
        dead = DeadLetterWriter(self._prefix, lane, "operator", self._rules)
        token = f"operator:{uuid.uuid4().hex}"
        with self._reader.redis.pipeline() as pipeline:
            for _ in range(_TRIES):
                pipeline.watch(meta)
                sent = int(pipeline.hget(meta, "sent") or 0)
                outcomes = [make(0 < number <= sent) for number in numbers]
                pipeline.multi()
                given = _arguments(context, record, places, outcomes, dead)
                arguments = ["", token, GRACE_MS, *given]
                self._settle_script(keys=dead.keys, args=arguments, client=pipeline)
                try:
                    [reply] = pipeline.execute()
                except WatchError:
                    # Something was put or sent meanwhile: look again what was sent.
                    continue
                except OutOfMemoryError:
                    # A full Redis takes no transaction.
                    break
                return self._told(lane, context, reply, outcomes)
            pipeline.reset()
        # The lane is too busy for a look and a step, or Redis is full; unknown is true of any
        # message.
        outcomes = [make(True) for _ in places]
        given = _arguments(context, record, places, outcomes, dead)
        arguments = ["", token, GRACE_MS, *given]
        reply = self._settle_script(keys=dead.keys, args=arguments)
        return self._told(lane, context, reply, outcomes)

    def _told(
        self, lane: Lane, context: str, reply: Sequence[Any], outcomes: Sequence[Outcome]
    ) -> Change:
        """Do the effects if the step settled the context."""
        topic = lane.topic if lane.has_messages else None
        for answer in reply[1:]:
            settled = read_answer(answer, topic).settled
            if settled is not None:
                observers.ended(lane, [settled], self._rules)
                return self._finish(lane, settled)
        return Change(context, Changed.SETTLED)

    def _finish(self, lane: Lane, settled: Settled) -> Change:
        done = self._effects.run([settled])
        status = settled.failure.status if settled.failed else "stored"
        if not done:
            return Change(settled.record.context, Changed.FAILED, status)
        self._outbox.finish(lane, [settled])
        return Change(settled.record.context, Changed.DONE, status)


def _arguments(
    context: str,
    record: StoredRecord,
    places: Sequence[int],
    outcomes: Sequence[Outcome],
    dead: DeadLetterWriter,
) -> list[str | int | bytes]:
    """Return what the script gets for each message. ``ok``: it counts from any caller."""
    arguments: list[str | int | bytes] = []
    for place, outcome in zip(places, outcomes, strict=True):
        where = place if record.count > 1 else -1
        kind = f"ok\n{dead.cause_of(outcome)}" if isinstance(outcome, Failure) else "ok"
        arguments += (context, record.first, where, encode_outcome(outcome), kind)
    return [*arguments, *dead.bounds]


def _told(change: Change, words: str) -> dict[str, Any]:
    return {"result": change.result, "status": change.status, "reason": words}
