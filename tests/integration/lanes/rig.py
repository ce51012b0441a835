"""What the tests of the lanes share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from celery_stargate import Failure, Receipt
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import LeasedLane
from celery_stargate.lanes.loop_outbox import LoopOutbox
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.puts import AskedPut
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.lanes.target import Target
from celery_stargate.lanes.waiter import FirstNumber
from celery_stargate.lanes.wire import CompleteReply, SettleReply
from celery_stargate.model.entry import Entry, label_of
from celery_stargate.model.follow_up import ResultRow
from celery_stargate.model.outcome import Outcome
from celery_stargate.support.bound import time_left

_T = TypeVar("_T")


class Owner:
    """An owner of a lane, whose calls block."""

    def __init__(
        self, target: Target | str, prefix: str, lane: Lane, name: str, lease: float
    ) -> None:
        self._runner = asyncio.Runner()
        self._redis = Connections(target).asyncio()
        self._client = Connections(target).sync()
        self.store = LeasedLane(self._redis, prefix, lane, name, lease)

    def do(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Run one call of the store."""
        return self._runner.run(call)

    def read_large(self, after: int, count: int, size: int) -> list[Entry]:
        """Read messages without a script; none if one of them needs it."""
        found = self.do(self.store.look(after, count, size))
        return self.do(self.store.note(found)) if found else []

    def settle(self, outcomes: Sequence[tuple[str, int, Outcome]], token: str) -> SettleReply:
        """Settle messages, given by context and place, of the contexts that are there now."""
        given = []
        for context, place, outcome in outcomes:
            number = self._first(context) + max(place, 0)
            given.append((Entry(number, label_of(context, place), b"", place), outcome))
        return self.do(self.store.settle(given, token))

    def complete(
        self, contexts: Sequence[str], results: Sequence[tuple[str, ResultRow]], token: str
    ) -> CompleteReply:
        """Complete contexts that are there now."""
        entries = [Entry(self._first(each), each, b"") for each in contexts]
        rows = [(Entry(self._first(each), each, b""), row) for each, row in results]
        return self.do(self.store.complete(entries, rows, token))

    def finish(self, *contexts: str) -> None:
        """Finish contexts that are there now."""
        self.do(self.store.finish([settled_of(each, self._first(each)) for each in contexts]))

    def _first(self, context: str) -> int:
        key = self.store.log_key.removesuffix("log") + "contexts"
        stored: Any = self._client.hget(key, context)
        return first_of(stored)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
        self._runner.run(self._redis.aclose())
        self._runner.close()


class MakeOwner(Protocol):
    """Make an owner that holds the lease, unless told otherwise."""

    def __call__(
        self, name: str = ..., lease: float = ..., *, acquire: bool = ..., lane: Lane | None = ...
    ) -> Owner:
        """Return it."""


def first_of(record: bytes | None) -> int:
    """The first number in the head of a record; 1 where there is none."""
    return int(record.split()[1]) if record else 1


def settled_of(context: str, first: int) -> Settled:
    """A context, as one knows it whose effects are done."""
    return Settled(Record(context), (), first)


def finish(lanes: Outbox, lane: Lane, *contexts: str) -> None:
    """Finish contexts that are there now, from a process that does not own the lane."""
    client = lanes._connections.sync()  # noqa: SLF001
    key = lane.key(lanes._prefix, "contexts")  # noqa: SLF001
    done = [settled_of(each, first_of(client.hget(key, each))) for each in contexts]  # type: ignore[arg-type]
    lanes.finish(lane, done)


def inbox_key(lanes: Outbox, inbox: str) -> str:
    """The key of an inbox."""
    return lanes.inboxes._key(inbox)  # noqa: SLF001


def put(lanes: Outbox, lane: Lane, context: str, count: int = 1, **options: Any) -> None:
    """Put a context with one message, or with a list of several."""
    messages = [
        (context if count == 1 else f"{context}\t{place}", f"frame {context} {place}".encode())
        for place in range(count)
    ]
    options.setdefault("timeout", 60.0)
    lanes.put(lane, Record(context, is_list=count > 1), messages, **options)


def receipt(context: str, entry: int = 1) -> Receipt:
    """A receipt as Pulsar gives it."""
    return Receipt(context=context, ledger_id=1, entry_id=entry)


def failure(context: str) -> Failure:
    """A failure as the owner tells it."""
    return Failure(context=context, reason="no", code="send-error:8")


async def put_in_loop(outbox: LoopOutbox, asked: AskedPut) -> int:
    """Put from an event loop, and wait for the context's first number."""
    number = FirstNumber()
    await outbox.begin(asked, number, time_left())
    return await number.wait()
