"""``delivery/in_flight.py``: what is in flight outlives no connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from celery_stargate.delivery.in_flight import InFlight
from celery_stargate.pulsar.window import Window
from tests.unit.delivery.rig import entry


class FakeSession:
    """Notes what it is told."""

    misaligned = True

    def __init__(self) -> None:
        self.forgotten: list[tuple[str, int]] = []
        self.rechecks = 0

    def forget(self, messages: Iterable[tuple[str, int]]) -> None:
        self.forgotten += messages

    def recheck(self) -> None:
        self.rechecks += 1


def test_without_a_connection() -> None:
    """There is nothing to tell, and no socket."""
    in_flight = InFlight(Window(10, 1000))
    in_flight.forget([("c1", 1)])
    in_flight.recheck_lease()
    assert in_flight.descriptor is None
    assert not in_flight.misaligned
    assert len(in_flight) == 0


def test_with_a_session() -> None:
    """It is told of renewals and of outcomes, until it is closed; then nothing is in flight."""
    session = FakeSession()
    in_flight = InFlight(Window(10, 1000))
    in_flight.opened(cast("Any", session))
    for number in (1, 2):
        in_flight.window.add(entry(number))
    in_flight.forget([("c1", 1)])
    in_flight.recheck_lease()
    assert in_flight.misaligned
    assert len(in_flight) == 2
    in_flight.closed()
    in_flight.forget([("c2", 2)])
    in_flight.recheck_lease()
    assert (session.forgotten, session.rechecks) == ([("c1", 1)], 1)
    assert not in_flight.misaligned
    assert len(in_flight) == 0
