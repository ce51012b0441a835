"""What any process may do with lanes: put, acknowledge, expire, finish."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from redis.commands.core import Script

from celery_stargate.errors import ContextInUse, LaneFull, StoreUnavailable
from celery_stargate.lanes.connections import _translated, connect, stream_entries
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import (
    Record,
    Settled,
    decode_settled,
    decode_triples,
    encode_outcome,
    encode_record,
)
from celery_stargate.lanes.registry import Registry, parse_lanes
from celery_stargate.lanes.scripts import LANE_PARTS, lane_script, registry_script
from celery_stargate.model.follow_up import FollowUp
from celery_stargate.model.outcome import Failure, Outcome
from celery_stargate.support.per_process import PerProcess

__all__ = ["Outbox"]

#: How long a repeat of a put gets the first answer; redis-py gives up far sooner.
ANSWER_MS = 60_000
#: How long the one who settled has for the effects before another does them.
GRACE_MS = 15_000
#: How many puts, and how many bytes of frames, one pipeline has at most; and one script in it,
#: which must not hold Redis for long.
_PIPELINE_COUNT, _PIPELINE_BYTES = 500, 4 << 20
_SCRIPT_COUNT, _SCRIPT_BYTES = 100, 1 << 20
#: A lane is announced again after this many seconds of use.
_ANNOUNCE_EVERY = 60.0


_Put = TypeVar("_Put", bound=tuple[Any, ...])


class Outbox:
    """The callers' side of all lanes of one prefix, in one process, safe among threads.

    Arguments:
        url: of the Redis that holds them.
        prefix: what its keys begin with.
        monotonic: the clock by which lanes are announced again.
    """

    def __init__(
        self, url: str, prefix: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = PerProcess(lambda: connect(url))
        self._prefix = prefix
        self._registry = Registry(prefix)
        self._monotonic = monotonic
        self._announced: dict[Lane, float] = {}
        # Free callers' slots. A deque's ends need no lock.
        self._slots: PerProcess[deque[_Slot]] = PerProcess(deque)
        # By name: to register a script takes its hash, each time.
        self._scripts: PerProcess[dict[str, Script]] = PerProcess(dict)
        self._keys: dict[Lane, list[str]] = {}

    def put(
        self,
        lane: Lane,
        record: Record,
        messages: Sequence[tuple[str, bytes]],
        *,
        timeout: float,
        max_backlog: int = 0,
        tombstone: float = 0.0,
        options: dict[str, Any] | None = None,
        exclusive: bool = False,
    ) -> None:
        """Record a context and its messages in a lane, once.

        Arguments:
            messages: label and frame of each; none for a context without a message. An empty label
                is the one in the frame; an empty frame stands for a message in another lane.
            timeout: seconds until its deadline.
            max_backlog: how many messages the lane may hold; 0 for any number.
            tombstone: seconds for which a put of the same context is known after its end.
            options: what a worker that does not know this topic's options should use.
            exclusive: refuse a context that is there already.

        Raises:
            LaneFull: the lane holds ``max_backlog`` messages.
            ContextInUse: the context is there, and ``exclusive`` was asked for.
            StoreUnavailable: Redis did not answer in bounded time.
        """
        arguments: list[Any] = [
            record.context,
            encode_record(record),
            max(1, round(timeout * 1000)),
            max_backlog,
            round(tombstone * 1000),
            ANSWER_MS,
            record.mark if len(messages) == 1 else FollowUp.MORE.value,
        ]
        for label, frame in messages:
            arguments += (label, frame)
        with self._call(lane, "put") as (run, token):
            self._announce(lane, options)
            what, number = run([token, *arguments])
            if what == b"new" and number == 1 and messages:
                # A new life of the lane: Redis may have lost it, and then its announcement too.
                self._announced.pop(lane, None)
                self._announce(lane, options)
        if what == b"full":
            raise LaneFull(lane.name, number, max_backlog)
        if what == b"known" and exclusive:
            raise ContextInUse(record.context)

    def put_many(
        self,
        puts: Sequence[tuple[Lane, Record, bytes]],
        *,
        timeout: float,
        options: dict[str, Any] | None = None,
        tombstone: float = 0.0,
    ) -> None:
        """Record many contexts, each with one message, in their order.

        Without a tombstone their ids must be new: what has ended would be sent again.

        They go in pipelines of bounded size, each script with a token of its own: a pipeline
        whose answer was lost is repeated as a single put is.

        Arguments:
            puts: lane, record, and frame of each.
            timeout: seconds until the deadline of each.
            options, tombstone: as in :meth:`put`.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time; its text says how many are
                surely recorded.
        """
        recorded = 0
        for chunk in _chunks(puts, _PIPELINE_COUNT, _PIPELINE_BYTES):
            try:
                self._put_chunk(chunk, max(1, round(timeout * 1000)), options, tombstone)
            except StoreUnavailable as error:
                raise StoreUnavailable(
                    f"{error}; the first {recorded} of {len(puts)} messages are recorded and go "
                    "on, of the others it is not known"
                ) from error
            recorded += len(chunk)

    def _put_chunk(
        self,
        chunk: Sequence[tuple[Lane, Record, bytes]],
        timeout: int,
        options: dict[str, Any] | None,
        tombstone: float,
    ) -> None:
        groups: dict[Lane, list[tuple[Record, bytes]]] = {}
        for lane, record, frame in chunk:
            groups.setdefault(lane, []).append((record, frame))
        script = self._script("put_many")
        calls: list[Lane] = []
        taken: list[_Slot] = []
        try:
            with _translated(), self._redis.get().pipeline(transaction=False) as pipeline:
                for lane in groups:
                    self._announce(lane, options)
                # By the same connection: however often it is made anew, Redis has the script.
                pipeline.script_load(script.script)
                for lane, group in groups.items():
                    for some in _chunks(group, _SCRIPT_COUNT, _SCRIPT_BYTES):
                        taken.append(slot := self._take_slot())
                        calls.append(lane)
                        arguments: list[Any] = [slot.token(), timeout, ANSWER_MS]
                        for record, frame in some:
                            arguments += (record.context, encode_record(record))
                            arguments += (record.mark, frame)
                        if tombstone:
                            arguments.append(round(tombstone * 1000))
                        keys = self._keys_of(lane, slot)
                        pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
                # redis-py would show the failed command, and with it what it holds.
                _, *replies = pipeline.execute(raise_on_error=False)
                for reply in replies:
                    if isinstance(reply, Exception):
                        raise reply
                for lane, (_, number) in zip(calls, replies, strict=True):
                    if number == 1:
                        self._announced.pop(lane, None)
                        self._announce(lane, options)
        finally:
            self._slots.get().extend(taken)

    def settle(self, lane: Lane, outcome: Outcome, *, place: int = -1, anyone: bool = False) -> Any:
        """Give a context its outcome, for a process that does not own the lane.

        Arguments:
            place: the message's place in a list; -1 for the whole context.
            anyone: let an error count too.

        Returns:
            ``(word, settled)``: ``due`` with what to do the effects for, or ``part``, ``late`` or
            ``ignored`` with None.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
            TypeError: the receipt's ``value`` is not for JSON.
        """
        kind = "foreign" if isinstance(outcome, Failure) and not anyone else "ok"
        encoded = encode_outcome(outcome)
        with self._call(lane, "settle") as (run, token):
            reply = run(["", token, GRACE_MS, outcome.context, place, encoded, kind])
        word, *rest = reply[1]
        if word != b"due":
            return word.decode(), None
        return "due", decode_settled(rest[0], rest[1], outcome.topic)

    def expire(self, lane: Lane, context: str = "") -> list[Settled]:
        """Settle what is overdue in a lane: one context, or up to 100.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        with self._call(lane, "expire") as (run, _):
            reply = run([GRACE_MS, 100, context])
        return list(decode_triples(reply, lane))

    def finish(self, lane: Lane, contexts: Iterable[str]) -> None:
        """Forget contexts whose effects are done.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        with self._call(lane, "finish") as (run, _):
            run(list(contexts))

    def backlog(self, lane: Lane) -> int:
        """Return how many messages a lane holds.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        with _translated():
            return int(self._redis.get().xlen(lane.key(self._prefix, "log")))

    def survey(self) -> tuple[int, list[Lane]]:
        """Return how many workers are alive, and the lanes there are.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        with _translated():
            script = self._redis.get().register_script(registry_script("heartbeat"))
            workers, *names = script(
                keys=[self._registry.key("workers"), self._registry.key("lanes")], args=["", 0]
            )
        return int(workers), parse_lanes(names)

    def notify(self, address: str, outcome: bytes) -> None:
        """Put an outcome into the inbox of a process that waits; it is kept for an hour.

        Arguments:
            address: the inbox and the ticket in it, with a slash between.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        key = self._registry.inbox(address.partition("/")[0])
        with _translated(), self._redis.get().pipeline(transaction=False) as pipeline:
            pipeline.xadd(key, {"to": address, "outcome": outcome})
            pipeline.expire(key, 3600)
            pipeline.execute()

    def subscribe(self, inbox: str, after: str, timeout: float) -> list[tuple[str, str, bytes]]:
        """Wait for outcomes in an inbox, at most ``timeout`` seconds.

        Arguments:
            after: the last entry that was dealt with; what stands before it is thrown away.

        Returns:
            Entry, address and outcome of each.

        Raises:
            StoreUnavailable: Redis did not answer in bounded time.
        """
        key = self._registry.inbox(inbox)
        with _translated(), self._redis.get().pipeline(transaction=False) as pipeline:
            pipeline.xtrim(key, minid=after, approximate=False)
            pipeline.xread({key: after}, count=100, block=max(1, round(timeout * 1000)))
            _, streams = pipeline.execute()
        return [
            (entry.decode(), fields[b"to"].decode(), fields[b"outcome"])
            for _, entries in stream_entries(streams)
            for entry, fields in entries
        ]

    def close(self) -> None:
        """Close this process's connections; a later call makes new ones."""
        self._redis.get().close()

    def _announce(self, lane: Lane, options: dict[str, Any] | None) -> None:
        now = self._monotonic()
        known = self._announced.get(lane)
        if known is not None and now - known < _ANNOUNCE_EVERY:
            return
        client = self._redis.get()
        if options is not None:
            text = json.dumps(options, sort_keys=True)
            client.hset(lane.key(self._prefix, "meta"), "options", text)
        script = client.register_script(registry_script("announce"))
        script(keys=[self._registry.key("lanes"), self._registry.key("events")], args=[lane.name])
        self._announced[lane] = now

    @contextmanager
    def _call(self, lane: Lane, name: str) -> Iterator[tuple[Callable[[list[Any]], Any], str]]:
        slot = self._take_slot()
        script = self._script(name)
        keys = self._keys_of(lane, slot)
        try:
            with _translated():
                yield lambda arguments: script(keys=keys, args=arguments), slot.token()
        finally:
            self._slots.get().append(slot)

    def _take_slot(self) -> _Slot:
        try:
            return self._slots.get().pop()
        except IndexError:
            return _Slot()

    def _script(self, name: str) -> Script:
        scripts = self._scripts.get()
        if name not in scripts:
            scripts[name] = self._redis.get().register_script(lane_script(name))
        return scripts[name]

    def _keys_of(self, lane: Lane, slot: _Slot) -> list[str]:
        keys = self._keys.get(lane)
        if keys is None:
            keys = self._keys[lane] = [lane.key(self._prefix, part) for part in LANE_PARTS]
        return [*keys, lane.key(self._prefix, f"answers:{slot.name}")]


class _Slot:
    """A caller as the scripts know it: one call at a time, each with a number of its own."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self._numbers = itertools.count(1)

    def token(self) -> str:
        return f"{self.name}:{next(self._numbers)}"


def _chunks(puts: Sequence[_Put], max_count: int, max_bytes: int) -> Iterator[Sequence[_Put]]:
    """Split puts, each with its frame last, into parts; one is in a part however large it is."""
    start = size = 0
    for place, put in enumerate(puts):
        length = len(put[-1])
        size += length
        if place > start and (place - start >= max_count or size > max_bytes):
            yield puts[start:place]
            start, size = place, length
    if start < len(puts):
        yield puts[start:]
