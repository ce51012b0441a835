"""Signals: connect a function to what happens to messages, as to Celery's own signals.

Nothing is sent before this module is imported and a receiver is connected. Each receiver gets
``sender``, and ``detail``: a frozen object without the payload. A receiver runs where it happens,
mostly in the acknowledger's thread, so it must be quick. What it raises is logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from celery.utils.dispatch import Signal

from celery_stargate import observers
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.entry import Entry
from celery_stargate.model.outcome import Outcome
from celery_stargate.observers import (
    ConnectionLost,
    LaneTakenOver,
    MessageDeadLettered,
    MessageRecorded,
    Observer,
    Settlement,
)

__all__ = [
    "ConnectionLost",
    "LaneTakenOver",
    "MessageDeadLettered",
    "MessageRecorded",
    "MessageSent",
    "MessageSettled",
    "connection_lost",
    "lane_taken_over",
    "message_dead_lettered",
    "message_recorded",
    "message_sent",
    "message_settled",
]


class MessageSent(msgspec.Struct, frozen=True, kw_only=True):
    """A message is being sent to Pulsar; it is told again if it is sent again."""

    #: The id of its call.
    context: str
    #: The topic's full name.
    topic: str
    #: The name of its lane.
    lane: str
    #: Its number in the lane.
    number: int
    #: Its place in the call's list; -1 for a single message.
    place: int


class MessageSettled(msgspec.Struct, frozen=True, kw_only=True):
    """A message has its outcome: it is stored, refused, or nobody can know."""

    #: The id of its call.
    context: str
    #: The topic's full name.
    topic: str
    #: The name of its lane.
    lane: str
    #: The receipt or the failure.
    outcome: Outcome
    #: From its send to its outcome; None if this process did not send it.
    seconds: float | None = None


def _signal(name: str) -> Signal:
    return Signal(name=name, providing_args=["detail"])


#: In the calling process: a call is in its lane. ``detail`` is a :class:`MessageRecorded`.
message_recorded = _signal("message_recorded")
#: In the lane's owner, before each write of a message. ``detail`` is a :class:`MessageSent`.
message_sent = _signal("message_sent")
#: In the process that settles, mostly the lane's owner. ``detail`` is a :class:`MessageSettled`.
message_settled = _signal("message_settled")
#: In the process that settles: a message that failed is kept. ``detail`` is a
#: :class:`MessageDeadLettered`.
message_dead_lettered = _signal("message_dead_lettered")
#: In the new owner. ``detail`` is a :class:`LaneTakenOver`.
lane_taken_over = _signal("lane_taken_over")
#: In the lane's owner. ``detail`` is a :class:`ConnectionLost`.
connection_lost = _signal("connection_lost")


class SignalSender(Observer):
    """Sends the signals that have receivers; ``sender`` is the topic's full name."""

    def recorded(self, calls: Sequence[MessageRecorded]) -> None:
        """Send :data:`message_recorded` for each call."""
        if message_recorded.receivers:
            for each in calls:
                message_recorded.send(sender=each.topic, detail=each)

    def sent(self, lane: Lane, entries: Sequence[Entry]) -> None:
        """Send :data:`message_sent` for each message."""
        if message_sent.receivers:
            for each in entries:
                told = MessageSent(
                    context=each.context,
                    topic=lane.topic,
                    lane=lane.name,
                    number=each.number,
                    place=each.place,
                )
                message_sent.send(sender=lane.topic, detail=told)

    def settled(
        self, lane: Lane, settlements: Sequence[Settlement], server: str | None = None
    ) -> None:
        """Send :data:`message_settled` for each message."""
        if message_settled.receivers:
            for each in settlements:
                told = MessageSettled(
                    context=each.outcome.context,
                    topic=lane.topic,
                    lane=lane.name,
                    outcome=each.outcome,
                    seconds=each.seconds,
                )
                message_settled.send(sender=lane.topic, detail=told)

    def dead_lettered(self, dead: Sequence[MessageDeadLettered]) -> None:
        """Send :data:`message_dead_lettered` for each message."""
        for each in dead:
            _send(message_dead_lettered, each)

    def taken_over(self, taken: LaneTakenOver) -> None:
        """Send :data:`lane_taken_over`."""
        _send(lane_taken_over, taken)

    def connection_lost(
        self, lost: ConnectionLost, unanswered: Sequence[tuple[Entry, float | None]]
    ) -> None:
        """Send :data:`connection_lost`."""
        _send(connection_lost, lost)


def _send(signal: Signal, detail: Any) -> None:
    if signal.receivers:
        signal.send(sender=detail.topic, detail=detail)


observers.add(SignalSender())
