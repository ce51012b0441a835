"""The life of a context, as a table.

Rules for editors: every state in which a context can be found in Redis is here, with the keys
that hold it; every script changes states only along this table. A transition that is absent is
not an error of the caller: the script answers that nothing changed, and it is counted.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["TRANSITIONS", "Event", "State"]


class State(Enum):
    """Where a context stands."""

    ABSENT = "absent"  #: in no key: never put, or finished
    PENDING = "pending"  #: in ``contexts``, ``deadlines`` and (its messages) ``log``
    DUE = "due"  #: in ``contexts``, ``outcomes`` and ``due``: settled, effects not done


class Event(Enum):
    """What happens to a context; each is one script."""

    PUT = "put"  #: the caller records it
    PUT_MANY = "put_many"  #: the caller records it, together with others
    RECEIPT = "settle"  #: its last receipt came, or it was refused
    COMPLETION = "complete"  #: its receipt came, and nothing follows it but a result, stored here
    DEADLINE = "expire"  #: its deadline passed
    EFFECTS = "finish"  #: its result is stored and its callbacks are published


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.ABSENT: {Event.PUT: State.PENDING, Event.PUT_MANY: State.PENDING},
    State.PENDING: {
        Event.RECEIPT: State.DUE,
        Event.COMPLETION: State.ABSENT,
        Event.DEADLINE: State.DUE,
    },
    State.DUE: {Event.EFFECTS: State.ABSENT},
}
