"""The outbox: any process may put, settle, expire and finish contexts in it."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from celery_stargate.errors import LaneFull, StoreUnavailable
from celery_stargate.lanes.connections import Connections, store_errors
from celery_stargate.lanes.dead_letters import NO_DEAD_LETTERS, DeadLetterWriter
from celery_stargate.lanes.inbox import Inboxes
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.loop_outbox import LoopOutbox
from celery_stargate.lanes.puts import (
    ANSWER_MS,
    AskedPut,
    begin_arguments,
    follow_up_code,
    milliseconds,
)
from celery_stargate.lanes.record import (
    Record,
    Settled,
    decode_triples,
    encode_outcome,
    encode_record,
)
from celery_stargate.lanes.registry import CallerRegistry
from celery_stargate.lanes.scripts import Argument, Caller, Callers, Run, Scripts, lane_keys
from celery_stargate.lanes.wire import SettleAnswer, read_answer, read_put
from celery_stargate.model.dead_letters import DeadLetterRules
from celery_stargate.model.outcome import Failure, Outcome
from celery_stargate.support.bound import USUAL, bounded, call_bound

__all__ = ["Outbox"]

#: How long, in ms, whoever settled has for the effects before another process does them.
GRACE_MS = 15_000
#: How many overdue contexts one call settles at most.
_EXPIRE_COUNT = 100
#: How long Redis has for one pipeline of puts at least, in seconds.
_LEAST_BOUND = 0.5
#: How many puts, and how many bytes of frames, one pipeline holds at most.
_PIPELINE_COUNT, _PIPELINE_BYTES = 500, 4 << 20
#: The same for one script in it; a script must not occupy Redis for long.
_SCRIPT_COUNT, _SCRIPT_BYTES = 100, 1 << 20
#: How long, in ms, room that a call reserved in a lane is kept for it.
RESERVED_MS = 60_000

_Put = TypeVar("_Put", bound=tuple[Any, ...])


class Outbox:
    """All lanes of one prefix, as callers use them; safe among threads and after a fork.

    Each call ends within the bound around it (:mod:`celery_stargate.support.bound`), and within
    5 s where there is none.

    Arguments:
        connections: to the Redis that holds the lanes.
        prefix: what all keys begin with (``stargate_prefix``).
        rules: which messages become dead letters; by default none do.
        monotonic: the clock, in seconds, by which lanes are announced again.
    """

    def __init__(
        self,
        connections: Connections,
        prefix: str,
        rules: DeadLetterRules = NO_DEAD_LETTERS,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        #: Where lanes are announced and workers are counted.
        self.registry = CallerRegistry(connections, prefix, monotonic=monotonic)
        #: Where processes wait for the outcomes of what they put here.
        self.inboxes = Inboxes(connections, prefix)
        self._connections = connections
        self._prefix = prefix
        self._rules = rules
        self._scripts = Scripts(connections)
        self._callers = Callers()

    def put(
        self,
        lane: Lane,
        record: Record,
        messages: Sequence[tuple[str, bytes]],
        *,
        timeout: float,
        max_backlog: int | str = 0,
        tombstone: float = 0.0,
        options: Mapping[str, object] | None = None,
        exclusive: bool = False,
    ) -> int:
        """Record a context and its messages in a lane, once.

        Arguments:
            messages: label and frame of each; none for a context without a message. An empty label
                means the one in the frame. An empty frame means a message in another lane.
            timeout: seconds until its deadline.
            max_backlog: how many messages the lane may hold, 0 for any number; or the name of the
                room that :meth:`reserve` reserved for it.
            tombstone: seconds for which the context is known after its end, so that a repeated put
                does nothing.
            options: producer options for a worker whose settings do not have this topic.
            exclusive: raise an error for a context that is there already.

        Returns:
            The context's first number, which tells it from another of the same name; 0 if it was
            recorded before, and is pending no more.

        Raises:
            LaneFull: the lane holds ``max_backlog`` messages.
            ContextInUse: the context is there, or was within ``tombstone``, and ``exclusive`` was
                set.
            StoreUnavailable: Redis did not answer within the bound of the call.
        """
        asked = AskedPut(
            *(lane, record, messages, timeout, max_backlog, tombstone, exclusive), options=options
        )
        arguments = asked.arguments(self._prefix)
        with call_bound(), store_errors(), self._callers.lend() as [caller]:
            self.registry.announce(lane, options)
            keys = lane_keys(self._prefix, lane, caller.name, listed=True)
            reply = read_put(self._scripts.run("put", keys, [caller.token(), *arguments]))
            if reply.unlisted:
                self.registry.heal(lane, options)
        return asked.number(reply)

    def in_loop(self) -> LoopOutbox:
        """Return the same lanes for the calls of the running event loop; the caller closes it."""
        return LoopOutbox(self._connections, self._prefix, self.registry, self._callers)

    def put_many(
        self,
        puts: Sequence[tuple[Lane, Record, bytes]],
        *,
        timeout: float,
        max_backlog: int = 0,
        tombstone: float = 0.0,
        options: Mapping[str, object] | None = None,
    ) -> None:
        """Record many contexts, each with one message, in order.

        They go in pipelines of bounded size. Each script in one has its own token, so a pipeline
        whose reply was lost is safe to repeat. Where the lanes are bounded, room for all of them is
        reserved first, so that all are recorded or none.

        Arguments:
            puts: lane, record and frame of each. The context of each must be new.
            timeout: seconds until the deadline of each.
            max_backlog: how many messages a lane may hold; 0 for any number.
            tombstone, options: as in :meth:`put`.

        Raises:
            LaneFull: a lane would hold more; nothing was recorded.
            StoreUnavailable: Redis did not answer a pipeline within ``timeout``, or 5 s; the text
                says how many messages are certainly recorded.
        """
        recorded = 0
        room: int | str = 0
        if max_backlog:
            room = self.reserve(Counter(lane for lane, _, _ in puts), max_backlog)
        times = milliseconds(timeout), round(tombstone * 1000)
        for chunk in _chunks(puts, _PIPELINE_COUNT, _PIPELINE_BYTES):
            try:
                with bounded(min(max(timeout, _LEAST_BOUND), USUAL)):
                    self._put_chunk(chunk, times, room, options)
            except StoreUnavailable as error:
                raise StoreUnavailable(
                    f"{error}; {recorded} of {len(puts)} messages are recorded "
                    "and will be sent; the others may or may not be recorded"
                ) from error
            recorded += len(chunk)

    def reserve(self, counts: Mapping[Lane, int], max_backlog: int) -> str:
        """Reserve room for messages that a call is about to put, in all their lanes or in none.

        Room that is not used is free again after a minute.

        Arguments:
            counts: how many messages go into each lane.
            max_backlog: how many messages a lane may hold.

        Returns:
            The name of the room, for :meth:`put`.

        Raises:
            LaneFull: a lane has no room; nothing is reserved.
            StoreUnavailable: Redis did not answer within the bound of the call.
        """
        name = uuid.uuid4().hex
        reserved: list[Lane] = []
        for lane, count in counts.items():
            there_is, held = self._reserve(lane, name, count, max_backlog)
            if not there_is:
                for other in reserved:
                    self._reserve(other, name, 0, max_backlog)
                raise LaneFull(lane.name, held, max_backlog)
            reserved.append(lane)
        return f"room:{name}"

    def settle(
        self,
        lane: Lane,
        outcome: Outcome,
        *,
        place: int = -1,
        anyone: bool = False,
        first: int | None = None,
    ) -> SettleAnswer:
        """Give a context its outcome, from a process that does not own the lane.

        Arguments:
            place: the message's place in a list; -1 for the whole context.
            anyone: let a failure count as a receipt does.
            first: the context's first number, so that another of the same name gets nothing; None
                for the one that is there.

        Raises:
            StoreUnavailable: Redis did not answer within the bound of the call.
            TypeError: JSON cannot represent the receipt's ``value``.
            ValueError: the context is settled, and its record is of another version or damaged.
        """
        kind = "foreign" if isinstance(outcome, Failure) and not anyone else "ok"
        encoded = encode_outcome(outcome)
        with call_bound(), store_errors(), self._callers.lend() as [caller]:
            number = "" if first is None else first
            dead = DeadLetterWriter(self._prefix, lane, caller.name, self._rules)
            if isinstance(outcome, Failure):
                kind = f"{kind}\n{dead.cause_of(outcome)}"
            given: list[Argument] = [outcome.context, number, place, encoded, kind]
            whole = ["", caller.token(), GRACE_MS, *given, *dead.bounds]
            _, answer = self._scripts.run("settle", dead.keys, whole)
        return read_answer(answer, outcome.topic)

    def expire(self, lane: Lane, context: str = "") -> list[Settled]:
        """Settle what is overdue in a lane: one context, or up to 100.

        Raises:
            StoreUnavailable: Redis did not answer within the bound of the call.
        """
        with call_bound(), store_errors(), self._callers.lend() as [caller]:
            dead = DeadLetterWriter(self._prefix, lane, caller.name, self._rules)
            given: list[Argument] = [GRACE_MS, _EXPIRE_COUNT, context, dead.deadline_cause]
            reply = self._scripts.run("expire", dead.keys, [*given, *dead.bounds])
        return list(decode_triples(reply, lane))

    def finish(self, lane: Lane, done: Iterable[Settled]) -> None:
        """Forget contexts whose effects are done.

        Raises:
            StoreUnavailable: Redis did not answer within the bound of the call.
        """
        with call_bound(), store_errors(), self._callers.lend() as [caller]:
            identities = [part for each in done for part in each.identity]
            self._run("finish", lane, caller, identities)

    def give_up(self, lane: Lane, ended: Iterable[tuple[Settled, str]]) -> None:
        """Forget contexts whose effects are over without success.

        Arguments:
            ended: each with the cause of its dead letter; empty for one that Celery tries again.

        Raises:
            StoreUnavailable: Redis did not answer within the bound of the call.
        """
        with call_bound(), store_errors(), self._callers.lend() as [caller]:
            dead = DeadLetterWriter(self._prefix, lane, caller.name, self._rules)
            arguments = [part for each, cause in ended for part in (*each.identity, cause)]
            self._scripts.run("give_up", dead.keys, [*arguments, *dead.bounds])

    def backlog(self, lane: Lane) -> int:
        """Return how many messages a lane holds.

        Raises:
            StoreUnavailable: Redis did not answer within the bound of the call.
        """
        with call_bound(), store_errors():
            return int(self._connections.sync().xlen(lane.key(self._prefix, "log")))

    def close(self) -> None:
        """Close this process's connections; a later call connects again."""
        self._connections.close()

    def _put_chunk(
        self,
        chunk: Sequence[tuple[Lane, Record, bytes]],
        times: tuple[int, int],
        room: int | str,
        options: Mapping[str, object] | None,
    ) -> None:
        with store_errors(), self._script_puts(chunk, times, room, options) as (lanes, runs):
            for lane in dict.fromkeys(lanes):
                self.registry.announce(lane, options)
            replies = self._scripts.run_many("put_many", runs)
            errors = [each for each in replies if isinstance(each, Exception)]
            for lane, reply in zip(lanes, replies, strict=True):
                if not isinstance(reply, Exception) and read_put(reply).unlisted:
                    self.registry.heal(lane, options)
            if errors:
                raise errors[0]

    @contextmanager
    def _script_puts(
        self,
        chunk: Sequence[tuple[Lane, Record, bytes]],
        times: tuple[int, int],
        room: int | str,
        options: Mapping[str, object] | None,
    ) -> Iterator[tuple[list[Lane], list[Run]]]:
        """Split puts into runs of ``put_many``: the lane of each, and its keys and arguments."""
        groups: dict[Lane, list[tuple[Record, bytes]]] = {}
        for lane, record, frame in chunk:
            groups.setdefault(lane, []).append((record, frame))
        parts = [
            (lane, part)
            for lane, group in groups.items()
            for part in _chunks(group, _SCRIPT_COUNT, _SCRIPT_BYTES)
        ]
        with self._callers.lend(len(parts)) as callers:
            runs: list[Run] = []
            for (lane, part), caller in zip(parts, callers, strict=True):
                timeout, tombstone = times
                arguments: list[Argument] = [caller.token(), timeout, room, tombstone, ANSWER_MS]
                for record, frame in part:
                    arguments += (record.context, encode_record(record))
                    arguments += (follow_up_code(self._prefix, lane, record), frame)
                arguments += begin_arguments(lane, options)
                runs.append((lane_keys(self._prefix, lane, caller.name, listed=True), arguments))
            yield [lane for lane, _ in parts], runs

    def _reserve(self, lane: Lane, name: str, count: int, max_backlog: int) -> tuple[bool, int]:
        """Reserve room in a lane, or give it back; return whether there is any, and the backlog."""
        given: list[Argument] = [f"room:{name}", count, max_backlog, RESERVED_MS]
        with call_bound(), store_errors(), self._callers.lend() as [caller]:
            there_is, held = self._run("reserve", lane, caller, given)
        return bool(there_is), int(held)

    def _run(self, name: str, lane: Lane, caller: Caller, arguments: Sequence[Argument]) -> Any:
        return self._scripts.run(name, lane_keys(self._prefix, lane, caller.name), arguments)


def _chunks(puts: Sequence[_Put], max_count: int, max_bytes: int) -> Iterator[Sequence[_Put]]:
    """Split puts into parts of bounded size; a put that is larger than that is a part by itself.

    Arguments:
        puts: each with its frame last.
        max_count: how many puts a part has at most.
        max_bytes: how many bytes of frames a part has at most.
    """
    start = size = 0
    for place, put in enumerate(puts):
        length = len(put[-1])
        size += length
        if place > start and (place - start >= max_count or size > max_bytes):
            yield puts[start:place]
            start, size = place, length
    if start < len(puts):
        yield puts[start:]
