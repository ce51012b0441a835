"""Signals: what their receivers get, and that receivers harm nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery.utils.dispatch import Signal

from celery_stargate import observers, signals
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Failure, Receipt
from celery_stargate.observers import Settlement
from celery_stargate.signals import (
    ConnectionLost,
    LaneTakenOver,
    MessageDeadLettered,
    MessageRecorded,
    MessageSent,
    MessageSettled,
)
from tests.unit.helpers import TOPIC

LANE = Lane(TOPIC, 2)
RECORDED = MessageRecorded(context="c", topic=TOPIC, lanes=(LANE.name,))
TAKEN = LaneTakenOver(lane=LANE.name, topic=TOPIC, owner="me", fencing_token=2)
LOST = ConnectionLost(lane=LANE.name, topic=TOPIC, in_flight=0, reason="r", error_type="LinkBroken")


@pytest.fixture
def got() -> Iterator[list[tuple[str, Any, Any]]]:
    """What receivers of all signals got: name, sender, detail."""
    found: list[tuple[str, Any, Any]] = []
    connected = []
    for name in signals.__all__:
        signal = getattr(signals, name)
        if not isinstance(signal, Signal):
            continue

        def receiver(sender: Any, detail: Any, name: str = name, **_: Any) -> None:
            found.append((name, sender, detail))

        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))
    yield found
    for signal, receiver in connected:
        signal.disconnect(receiver)


def test_each_signal_has_its_detail(got: list[tuple[str, Any, Any]]) -> None:
    failed = Failure(context="d", topic=TOPIC, code="deadline")
    entries = [Entry(7, "c", b"frame"), Entry(8, "d\t1", b"frame", 1)]
    observers.tell(lambda each: each.recorded([RECORDED]))
    observers.tell(lambda each: each.sent(LANE, entries))
    outcomes = [
        Settlement(Receipt(context="c", topic=TOPIC), entries[0], 1.0, 3.5),
        Settlement(failed),
    ]
    observers.tell(lambda each: each.settled(LANE, outcomes))
    dead = MessageDeadLettered(context="d", topic=TOPIC, lane=LANE.name, outcome=failed)
    observers.tell(lambda each: each.dead_lettered([dead]))
    observers.tell(lambda each: each.taken_over(TAKEN))
    observers.tell(lambda each: each.connection_lost(LOST, []))
    usual: dict[str, Any] = {"topic": TOPIC, "lane": LANE.name}
    assert got == [
        ("message_recorded", TOPIC, RECORDED),
        ("message_sent", TOPIC, MessageSent(context="c", number=7, place=-1, **usual)),
        ("message_sent", TOPIC, MessageSent(context="d", number=8, place=1, **usual)),
        (
            "message_settled",
            TOPIC,
            MessageSettled(context="c", outcome=outcomes[0].outcome, seconds=2.5, **usual),
        ),
        ("message_settled", TOPIC, MessageSettled(context="d", outcome=failed, **usual)),
        ("message_dead_lettered", TOPIC, dead),
        ("lane_taken_over", TOPIC, TAKEN),
        ("connection_lost", TOPIC, LOST),
    ]


def test_details_are_frozen_and_have_no_payload(got: list[tuple[str, Any, Any]]) -> None:
    observers.tell(lambda each: each.sent(LANE, [Entry(7, "c", b"the payload")]))
    [(_, _, detail)] = got
    with pytest.raises(AttributeError):
        detail.context = "another"
    assert "payload" not in repr(detail)


def test_a_receiver_that_raises_harms_nobody(got: list[tuple[str, Any, Any]]) -> None:
    """Neither the other receivers nor who sent the signal hear of it; Celery logs it."""

    def raising(**_: Any) -> None:
        raise RuntimeError("of the user")

    signals.lane_taken_over.connect(raising, weak=False)
    try:
        observers.tell(lambda each: each.taken_over(TAKEN))
    finally:
        signals.lane_taken_over.disconnect(raising)
    assert [name for name, _, _ in got] == ["lane_taken_over"]


def test_without_receivers_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the details."""
    made: list[Any] = []
    monkeypatch.setattr(signals, "MessageSent", lambda **given: made.append(given))
    monkeypatch.setattr(signals, "MessageSettled", lambda **given: made.append(given))
    sender = signals.SignalSender()
    sender.sent(LANE, [Entry(7, "c", b"frame")])
    sender.settled(LANE, [Settlement(Receipt(context="c"))])
    sender.recorded([RECORDED])
    sender.taken_over(TAKEN)
    sender.connection_lost(LOST, [])
    assert not made
