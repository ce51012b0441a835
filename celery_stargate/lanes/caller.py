"""What any process may do with lanes: put, acknowledge, expire, finish."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis.commands.core import Script
from redis.exceptions import RedisError

from ..errors import ContextInUse, LaneFull, StoreUnavailable
from ..outcome import Failure, Outcome
from ..per_process import PerProcess
from .lane import Lane, Registry, parse_lanes
from .record import Record, Settled, decode_settled, encode_outcome, encode_record
from .scripts import LANE_PARTS, lane_script, registry_script
from .store import UNAVAILABLE, connect, stream_entries

__all__ = ["Lanes"]

#: How long a repeat of a put gets the first answer; redis-py gives up far sooner.
ANSWER_MS = 60_000
#: How long the one who settled has for the effects before another does them.
GRACE_MS = 15_000
#: A lane is announced again after this many seconds of use.
_ANNOUNCE_EVERY = 60.0


class Lanes:
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
            messages: label and frame of each; none for a context without a message; an empty
                frame stands for a message that another lane holds.
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
        body = encode_record(record)
        arguments: list[Any] = [
            record.context,
            body,
            max(1, round(timeout * 1000)),
            max_backlog,
            round(tombstone * 1000),
            ANSWER_MS,
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
            script = self._redis.get().register_script(registry_script("attend"))
            workers, *names = script(
                keys=[self._registry.key("workers"), self._registry.key("lanes")], args=["", 0]
            )
        return int(workers), parse_lanes(names)

    def tell(self, address: str, outcome: bytes) -> None:
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

    def listen(self, inbox: str, after: str, timeout: float) -> list[tuple[str, str, bytes]]:
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
        slots = self._slots.get()
        try:
            slot = slots.pop()
        except IndexError:
            slot = _Slot()
        client = self._redis.get()
        script: Script = client.register_script(lane_script(name))
        keys = [lane.key(self._prefix, part) for part in LANE_PARTS]
        keys.append(lane.key(self._prefix, f"answers:{slot.name}"))
        try:
            with _translated():
                yield lambda arguments: script(keys=keys, args=arguments), slot.token()
        finally:
            slots.append(slot)


class _Slot:
    """A caller as the scripts know it: one call at a time, each with a number of its own."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self._numbers = itertools.count(1)

    def token(self) -> str:
        return f"{self.name}:{next(self._numbers)}"


def decode_triples(reply: Sequence[Any], lane: Lane) -> Iterator[Settled]:
    """Read context, record and outcomes, three by three; a record of another version stays out."""
    topic = lane.topic if lane.has_messages else None
    for record, outcomes in zip(reply[1::3], reply[2::3], strict=True):
        try:
            yield decode_settled(record, outcomes, topic)
        except ValueError as error:
            report_undecodable(lane, error)


def report_undecodable(lane: Lane, error: ValueError) -> None:
    """Log a record that this version cannot read; it stays where it is."""
    from ..log import logger

    logger.error("lane %s: %s; left alone", lane.name, error)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except UNAVAILABLE as error:
        raise StoreUnavailable(f"Redis does not answer: {error}") from error
    except RedisError as error:
        raise StoreUnavailable(f"Redis refused the call: {error}") from error
