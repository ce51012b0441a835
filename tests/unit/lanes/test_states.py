"""The table of a context's life, and the scripts that move along it."""

from __future__ import annotations

from importlib.resources import files

import pytest

from celery_stargate.lanes.scripts import LANE_PARTS
from celery_stargate.lanes.states import TRANSITIONS, Event, State


def test_every_state_and_event_is_in_the_table() -> None:
    """Nothing is named that does not happen."""
    assert set(TRANSITIONS) == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)


def test_every_context_ends() -> None:
    """From each state there is a way to ABSENT, and it is not left but by a put."""
    for start in State:
        seen = {start}
        while True:
            more = seen | {end for state in seen for end in TRANSITIONS[state].values()}
            if more == seen:
                break
            seen = more
        assert State.ABSENT in seen
    by_operators = {Event.REPLAY, Event.REDO}
    assert set(TRANSITIONS[State.ABSENT]) == {Event.PUT, Event.PUT_MANY} | by_operators


def test_one_outcome() -> None:
    """What is settled is not settled again: neither a receipt nor a deadline leaves DUE."""
    assert set(TRANSITIONS[State.DUE]) == {Event.EFFECTS, Event.FAILED_EFFECTS}


@pytest.mark.parametrize("event", Event)
def test_each_event_is_a_script_that_says_its_transition(event: Event) -> None:
    """In its first lines, as the table has it."""
    ends = {(start.name, row[event].name) for start, row in TRANSITIONS.items() if event in row}
    assert len(ends) == 1
    [(start, end)] = ends
    own = (files("celery_stargate.lanes") / "lua" / f"{event.value}.lua").read_text("utf-8")
    assert f"{start} -> {end}" in own.split("\n\n")[0]


@pytest.mark.parametrize("state", [state for state in State if state is not State.ABSENT])
def test_the_keys_of_a_state_are_keys_of_a_lane(state: State) -> None:
    """A context that is somewhere is found in `contexts`."""
    assert "contexts" in LANE_PARTS
    folder = files("celery_stargate.lanes") / "lua"
    texts = [(folder / f"{name}.lua").read_text("utf-8") for name in ("finish", "put", "settle")]
    assert any(state.name in text for text in texts)
