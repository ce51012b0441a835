"""The life of a context, as a table: its states in Redis, and the scripts that change them.

Each event is one Lua script of the same name. A script changes a context's state only as the table
says. For a pair of state and event that is not in the table the script changes nothing and says so
in its reply; the caller counts that, and it is not an error.

``tests/integration/lanes/test_states.py`` runs every script on a context in every state, and
``test_machine.py`` checks each step of random runs against the table. Whoever adds a state or a
script changes the table first.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["TRANSITIONS", "Event", "State"]


class State(Enum):
    """Where a context stands, by the keys of the lane that hold it."""

    ABSENT = "absent"  #: in none: never put, or finished
    PENDING = "pending"  #: in ``contexts`` and ``deadlines``, its messages in ``log``
    DUE = "due"  #: in ``contexts``, ``outcomes`` and ``due``: settled, its effects are not done


class Event(Enum):
    """What happens to a context; the value is the name of the script."""

    PUT = "put"  #: the caller records it
    PUT_MANY = "put_many"  #: the caller records it together with others
    RECEIPT = "settle"  #: its last outcome came
    COMPLETION = "complete"  #: its receipt came, and at most a result row follows, stored here
    DEADLINE = "expire"  #: its deadline passed
    REVOCATION = "revoke"  #: it was revoked before it was sent
    REPLAY = "replay"  #: an operator sends a dead letter again
    REDO = "redo"  #: an operator repeats effects that failed for good
    FAILED_EFFECTS = "give_up"  #: its effects failed for good, or Celery tries its task again
    EFFECTS = "finish"  #: its result is stored, its callbacks are published, its caller is notified


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.ABSENT: {
        Event.PUT: State.PENDING,
        Event.PUT_MANY: State.PENDING,
        Event.REPLAY: State.PENDING,
        Event.REDO: State.DUE,
    },
    State.PENDING: {
        Event.RECEIPT: State.DUE,
        Event.COMPLETION: State.ABSENT,
        Event.DEADLINE: State.DUE,
        Event.REVOCATION: State.DUE,
    },
    State.DUE: {Event.EFFECTS: State.ABSENT, Event.FAILED_EFFECTS: State.ABSENT},
}
