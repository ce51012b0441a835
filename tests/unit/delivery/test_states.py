"""``delivery/states.py``: the table of an owned lane, executed pair by pair."""

from __future__ import annotations

from itertools import product

import pytest

from celery_stargate.delivery.states import TRANSITIONS, Event, State, lane_machine
from celery_stargate.support.machine import IllegalEvent, Machine

PAIRS = list(product(State, Event))
IN_THE_TABLE = [(state, event) for state, event in PAIRS if event in TRANSITIONS[state]]
NOT_IN_IT = [pair for pair in PAIRS if pair not in IN_THE_TABLE]

#: The states in which a connection is open or being opened.
CONNECTED = {State.OPENING, State.READY, State.READING, State.CAUGHT_UP}
LEAVING = {State.LAST_BATCH, State.DRAINING, State.STOPPED}


def ids(pair: object) -> str:
    """Name a pair."""
    return str(getattr(pair, "name", pair))


@pytest.mark.parametrize(("state", "event"), IN_THE_TABLE, ids=ids)
def test_every_pair_of_the_table(state: State, event: Event) -> None:
    """Leads where the table says."""
    machine = Machine("lane x", TRANSITIONS, state)
    assert machine.apply(event) is TRANSITIONS[state][event]
    assert machine.state is TRANSITIONS[state][event]


@pytest.mark.parametrize(("state", "event"), NOT_IN_IT, ids=ids)
def test_every_other_pair(state: State, event: Event) -> None:
    """Is refused, and changes nothing."""
    machine = Machine("lane x", TRANSITIONS, state)
    expected = f"lane x: event {event.name} is not possible in state {state.name}"
    with pytest.raises(IllegalEvent, match=expected):
        machine.apply(event)
    assert machine.state is state


def test_every_state_and_event_is_in_the_table() -> None:
    """Nothing is named that does not happen, and every state but the first is reached."""
    assert set(TRANSITIONS) == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)
    reached = {
        target for state, row in TRANSITIONS.items() for target in row.values() if target != state
    }
    assert reached == set(State)


def test_a_lane_begins_idle() -> None:
    """Under its name."""
    machine = lane_machine("orders#0")
    assert machine.state is State.IDLE
    with pytest.raises(IllegalEvent, match="^lane orders#0: "):
        machine.apply(Event.ELAPSED)


@pytest.mark.parametrize("state", State)
def test_a_lane_can_be_given_back_from_every_state(state: State) -> None:
    """And what is given back is never read or sent again."""
    assert TRANSITIONS[state][Event.DRAIN] in LEAVING
    assert TRANSITIONS[state][Event.RELEASED] is State.STOPPED
    if state in LEAVING:
        assert set(TRANSITIONS[state].values()) <= LEAVING


@pytest.mark.parametrize("state", sorted(CONNECTED, key=str), ids=ids)
def test_a_connection_may_break_at_any_time(state: State) -> None:
    """Then the next try waits."""
    assert TRANSITIONS[state][Event.LINK_BROKEN] is State.BACKOFF
    assert TRANSITIONS[state][Event.REFUSED] is State.REFUSING
