"""``delivery/telling.py``: what observers are told of a lane; nothing is kept for nobody."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from celery_stargate import observers
from celery_stargate.delivery.telling import Telling
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.entry import Entry
from celery_stargate.observers import ConnectionLost, Observer, Settlement
from tests.unit.delivery.rig import entry, receipt
from tests.unit.helpers import TOPIC

LANE = Lane(TOPIC)


class Noted(Observer):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.times: list[tuple[float | None, float | None]] = []
        self.unanswered: list[tuple[int, float | None]] = []

    def settled(
        self, lane: Lane, settlements: Sequence[Settlement], server: str | None = None
    ) -> None:
        """Note the times."""
        self.times += [(each.sent_at, each.answered_at) for each in settlements]

    def connection_lost(
        self, lost: ConnectionLost, unanswered: Sequence[tuple[Entry, float | None]]
    ) -> None:
        """Note the messages."""
        self.unanswered += [(each.number, at) for each, at in unanswered]


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    """The only observer."""
    found = Noted()
    monkeypatch.setattr(observers, "_observers", (found,))
    return found


def test_each_message_has_its_times(noted: Noted) -> None:
    """When it was sent and when it was answered; what is not known is None."""
    now = [1.0]
    telling = Telling(LANE, lambda: now[0], 100)
    telling.sent([entry(1), entry(2)])
    assert telling.timed
    now[0] = 2.0
    telling.answered(1)
    telling.settled([(entry(1), receipt(1)), (entry(3), receipt(3))])
    assert noted.times == [(1.0, 2.0), (None, None)]
    telling.lost(OSError("cut"), [entry(2), entry(3)])
    assert noted.unanswered == [(2, 1.0), (3, None)]


def test_times_that_nobody_fetches_are_bounded(noted: Noted) -> None:
    """Of messages that were settled otherwise; the latest are kept."""
    telling = Telling(LANE, lambda: 1.0, 10)
    for number in range(100):
        telling.sent([entry(number)])
    telling.settled([(entry(number), receipt(number)) for number in (0, 80, 99)])
    assert noted.times == [(None, None), (None, None), (1.0, None)]


def test_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no clock is read and nothing is kept, and an observer that comes later is told."""
    monkeypatch.setattr(observers, "_observers", ())

    def clock() -> float:
        raise AssertionError("nobody wants to know the time")

    telling = Telling(LANE, clock, 100)
    telling.sent([entry(1)])
    assert not telling.timed
    telling.settled([(entry(1), receipt(1))])
    telling.lost(OSError("cut"), [entry(2)])
    found = Noted()
    monkeypatch.setattr(observers, "_observers", (found,))
    telling.settled([(entry(2), receipt(2))])
    assert found.times == [(None, None)]
