"""``support/machine.py``: the table is executed, and nothing else is possible."""

from __future__ import annotations

from enum import Enum

import pytest

from celery_stargate.support.machine import IllegalEvent, Machine


class Door(Enum):
    OPEN = 1
    SHUT = 2
    BRICKED = 3


class Act(Enum):
    PUSH = 1
    PULL = 2


TABLE = {
    Door.OPEN: {Act.PULL: Door.SHUT, Act.PUSH: Door.OPEN},
    Door.SHUT: {Act.PUSH: Door.OPEN},
}


def test_it_goes_along_the_table() -> None:
    """Each event gives the next state."""
    machine = Machine("the door", TABLE, Door.SHUT)
    assert [machine.apply(act) for act in (Act.PUSH, Act.PUSH, Act.PULL)] == [
        Door.OPEN,
        Door.OPEN,
        Door.SHUT,
    ]
    assert machine.state is Door.SHUT


def test_an_event_that_the_table_does_not_have() -> None:
    """It is refused with what would be possible, and the state stays."""
    machine = Machine("the door", TABLE, Door.SHUT)
    expected = "the door: event PULL is not possible in state SHUT; possible there: PUSH"
    with pytest.raises(IllegalEvent, match=f"^{expected}$"):
        machine.apply(Act.PULL)
    assert machine.state is Door.SHUT


def test_a_state_without_a_row() -> None:
    """Nothing is possible there."""
    with pytest.raises(IllegalEvent, match="possible there: none"):
        Machine("the door", TABLE, Door.BRICKED).apply(Act.PUSH)
