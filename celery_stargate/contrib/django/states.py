"""The life of an outbox row, as one table.

Rules for editors: every change of a row's state is in :data:`TRANSITIONS`. An ``UPDATE`` that
changes the state filters by :func:`sources`, so a transition that is not in the table changes
nothing, whichever process tries it.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["CHOICES", "CLOSED", "FAILED", "OPEN", "TRANSITIONS", "State", "sources"]


class State(StrEnum):
    """Where a row is on its way to Pulsar."""

    #: Committed with the caller's data; not known to be in a lane.
    PENDING = "pending"
    #: In its lane in Redis; no receipt yet.
    RECORDED = "recorded"
    #: Pulsar has it. The only state that a receipt can bring.
    STORED = "stored"
    #: It is not in the topic, and nothing sends it any more.
    REFUSED = "refused"
    #: It may be in the topic; nobody can tell.
    UNKNOWN = "unknown"
    #: An operator gave up a refused or unknown row.
    DISCARDED = "discarded"


#: As Django's fields have them.
CHOICES = [(state.value, state.name.capitalize()) for state in State]

#: From each state, the states that may follow.
TRANSITIONS: dict[State, frozenset[State]] = {
    # The lane has it; or its outcome came before the relay noted that.
    State.PENDING: frozenset({State.RECORDED, State.STORED, State.REFUSED, State.UNKNOWN}),
    # Back to pending: Redis lost the lane.
    State.RECORDED: frozenset({State.PENDING, State.STORED, State.REFUSED, State.UNKNOWN}),
    # Back to pending: an operator replays it under a new attempt.
    State.STORED: frozenset({State.PENDING}),
    # Back to pending: an operator requeues it under a new attempt. Stored: an operator replayed its
    # dead letter, which reports under the same context.
    State.REFUSED: frozenset({State.PENDING, State.STORED, State.DISCARDED}),
    State.UNKNOWN: frozenset({State.PENDING, State.STORED, State.DISCARDED}),
    State.DISCARDED: frozenset({State.PENDING}),
}

#: States that wait for an outcome.
OPEN = (State.PENDING, State.RECORDED)
#: States that have failed and wait for an operator.
FAILED = (State.REFUSED, State.UNKNOWN)
#: States of rows that may be deleted.
CLOSED = (State.STORED, State.DISCARDED)


def sources(target: State) -> list[State]:
    """Return the states from which a row may get into a state."""
    return [state for state, following in TRANSITIONS.items() if target in following]
