"""The states of an owned lane, as a table that the lane's parts execute.

The sender drives the machine: it does what the state says, and reports what happened as an event.
The source reports what it found in the lane's log. The owner reports that the lane is to be given
back. What a state waits for is in the comment beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from celery_stargate.support.machine import Machine

__all__ = ["TRANSITIONS", "Event", "LaneMachine", "State", "lane_machine"]


class State(Enum):
    """What an owned lane is doing."""

    IDLE = "idle"  #: no connection; waits for a message in the log
    OPENING = "opening"  #: a message is there; connects to Pulsar
    READY = "ready"  #: connected; nothing is on its way from the log to the socket
    READING = "reading"  #: connected; reads the log, or sends what was read
    CAUGHT_UP = "caught up"  #: connected; the log's end was read; waits for new messages
    LAST_BATCH = "last batch"  #: to be given back; what was read is still being sent
    DRAINING = "draining"  #: to be given back; sends nothing, waits for receipts and effects
    REFUSING = "refusing"  #: Pulsar refuses the topic for good; fails the messages in the log
    BACKOFF = "backoff"  #: no connection; waits before the next try
    STOPPED = "stopped"  #: done; the lease is given back


class Event(Enum):
    """What happens to an owned lane."""

    FOUND = "found"  #: the log holds a message
    OPENED = "opened"  #: the connection is open
    READ = "read"  #: a read of the log begins
    BATCH_SENT = "batch sent"  #: all that was read is in flight
    END_OF_LOG = "end of log"  #: there is no message behind the last one read
    PUT = "put"  #: the log has a new message
    SESSION_OVER = "session over"  #: idle timeout or a gap in the numbers; nothing is in flight
    LINK_BROKEN = "link broken"  #: no connection now, or its sequence ids are not the lane's
    REFUSED = "refused"  #: Pulsar refuses the topic for good, or does not deduplicate it
    REFUSALS_TOLD = "refusals told"  #: every message in the log has its failure
    ELAPSED = "elapsed"  #: the wait before the next try is over
    DRAIN = "drain"  #: the lane is to be given back
    DRAINED = "drained"  #: nothing is in flight any more, or the time for it is over
    RELEASED = "released"  #: the owner ends: it drained, lost the lease, or must read the lane anew


#: What the sender and the source may still report while the lane is given back: it changes nothing.
_WHILE_LEAVING = (
    *(Event.FOUND, Event.OPENED, Event.PUT, Event.SESSION_OVER, Event.LINK_BROKEN),
    *(Event.REFUSED, Event.REFUSALS_TOLD, Event.ELAPSED, Event.DRAIN),
)

TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.IDLE: {
        Event.FOUND: State.OPENING,
        Event.DRAIN: State.DRAINING,
        Event.RELEASED: State.STOPPED,
    },
    State.OPENING: {
        Event.OPENED: State.READY,
        Event.LINK_BROKEN: State.BACKOFF,
        Event.REFUSED: State.REFUSING,
        Event.DRAIN: State.DRAINING,
        Event.RELEASED: State.STOPPED,
    },
    State.READY: {
        Event.READ: State.READING,
        Event.END_OF_LOG: State.CAUGHT_UP,
        Event.SESSION_OVER: State.IDLE,
        Event.LINK_BROKEN: State.BACKOFF,
        Event.REFUSED: State.REFUSING,
        Event.DRAIN: State.DRAINING,
        Event.RELEASED: State.STOPPED,
    },
    State.READING: {
        Event.BATCH_SENT: State.READY,
        Event.LINK_BROKEN: State.BACKOFF,
        Event.REFUSED: State.REFUSING,
        Event.DRAIN: State.LAST_BATCH,
        Event.RELEASED: State.STOPPED,
    },
    State.CAUGHT_UP: {
        Event.PUT: State.READY,
        Event.SESSION_OVER: State.IDLE,
        Event.LINK_BROKEN: State.BACKOFF,
        Event.REFUSED: State.REFUSING,
        Event.DRAIN: State.DRAINING,
        Event.RELEASED: State.STOPPED,
    },
    State.LAST_BATCH: {
        Event.BATCH_SENT: State.DRAINING,
        Event.LINK_BROKEN: State.DRAINING,
        Event.REFUSED: State.DRAINING,
        Event.DRAIN: State.LAST_BATCH,
        Event.DRAINED: State.STOPPED,
        Event.RELEASED: State.STOPPED,
    },
    State.DRAINING: {
        **dict.fromkeys(_WHILE_LEAVING, State.DRAINING),
        Event.DRAINED: State.STOPPED,
        Event.RELEASED: State.STOPPED,
    },
    State.REFUSING: {
        Event.REFUSALS_TOLD: State.BACKOFF,
        Event.DRAIN: State.DRAINING,
        Event.RELEASED: State.STOPPED,
    },
    State.BACKOFF: {
        Event.ELAPSED: State.IDLE,
        Event.DRAIN: State.DRAINING,
        Event.RELEASED: State.STOPPED,
    },
    # Its tasks may report once more before they are cancelled, and drain() may be called twice.
    State.STOPPED: dict.fromkeys((*_WHILE_LEAVING, Event.DRAINED, Event.RELEASED), State.STOPPED),
}

LaneMachine = Machine[State, Event]


def lane_machine(lane: str) -> LaneMachine:
    """Return the machine of a lane that was just taken.

    Arguments:
        lane: its name, for errors.
    """
    return Machine(f"lane {lane}", TRANSITIONS, State.IDLE)
