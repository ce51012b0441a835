"""What the tests of the lanes share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from celery_stargate import Failure, Receipt
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import LeasedLane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record

_T = TypeVar("_T")


class Owner:
    """An owner of a lane, whose calls block."""

    def __init__(self, url: str, prefix: str, lane: Lane, name: str, lease: float) -> None:
        self._runner = asyncio.Runner()
        self._redis = Connections(url).asyncio()
        self.store = LeasedLane(self._redis, prefix, lane, name, lease)

    def do(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Run one call of the store."""
        return self._runner.run(call)

    def close(self) -> None:
        """Close the connection."""
        self._runner.run(self._redis.aclose())
        self._runner.close()


class MakeOwner(Protocol):
    """Make an owner that holds the lease, unless told otherwise."""

    def __call__(
        self, name: str = ..., lease: float = ..., *, acquire: bool = ..., lane: Lane | None = ...
    ) -> Owner:
        """Return it."""


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
