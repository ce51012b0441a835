"""Contexts without a message, over lanes that take notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from celery_stargate import InvalidMessage, ProduceTimeout, StoreUnavailable
from celery_stargate.calls.contexts import Contexts
from celery_stargate.calls.prepare import CallOptions
from celery_stargate.lanes.lane import CONTEXTS_LANE
from celery_stargate.lanes.record import Settled
from tests.unit.helpers import NotedLanes, failure, make_stargate


class Silent(NotedLanes):
    """Lanes whose inbox stays empty, but for what is told in this process."""

    inbox: Any = None

    def subscribe(self, inbox: str, handled: Sequence[str], timeout: float) -> list[Any]:
        """Look at once, and find nothing."""
        return []

    def notify(self, address: str, outcome: Any) -> None:
        """Tell the caller of this process."""
        super().notify(address, outcome)
        self.inbox.deliver(address, Settled(self.puts[0].record, (LATE,)).call)


LATE = failure("c", code="deadline", status="refused")


def contexts(**conf: Any) -> tuple[Contexts, Silent, CallOptions]:
    """Return contexts over such lanes, these, and the options of a call that waits."""
    stargate, _, _ = make_stargate(**conf)
    runtime = stargate.runtime
    lanes: Any = Silent()
    vars(runtime)["outbox"] = lanes
    lanes.inbox = runtime.inbox
    return Contexts(runtime, runtime.effects_apart), lanes, CallOptions.read(stargate.app)


def test_one_is_recorded_until_its_deadline() -> None:
    """With a callback a day, else half a minute; a repeat is refused."""
    found, lanes, options = contexts()
    future = found.expect("c", options)
    [put] = lanes.puts
    assert (put.lane, put.record.context, list(put.messages)) == (CONTEXTS_LANE, "c", [])
    assert put.options == {"timeout": 30.0, "exclusive": True}
    assert not future.done()
    lanes.inbox.deliver(put.record.inbox, Settled(put.record, (LATE,)).call)


def test_past_its_deadline_it_is_settled_here() -> None:
    """No owner may be alive."""
    found, lanes, _ = contexts()
    options = CallOptions(CallOptions.read(make_stargate()[0].app).callbacks, 0.01)

    def expire(lane: Any, context: str = "") -> list[Settled]:
        return [Settled(lanes.puts[0].record, (LATE,))]

    vars(lanes)["expire"] = expire
    with pytest.raises(ProduceTimeout):
        found.expect("c", options).result(10)
    assert lanes.finished[0] == ("c", 0)


def test_what_is_not_recorded_is_not_waited_for() -> None:
    """Nor is what cannot be a context."""
    found, lanes, options = contexts()
    lanes.error = StoreUnavailable("Redis is away")
    with pytest.raises(StoreUnavailable):
        found.expect("c", options)
    with pytest.raises(InvalidMessage):
        found.expect("a\nb", options)
    assert not lanes.inbox._waiting  # noqa: SLF001
