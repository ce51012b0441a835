"""State machines that are tables: the code executes the table that the docs show."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

__all__ = ["IllegalEvent", "Machine"]

_State = TypeVar("_State", bound=Enum)
_Event = TypeVar("_Event", bound=Enum)


class IllegalEvent(RuntimeError):
    """An event came in a state whose table does not have it: a mistake of the program."""


class Machine(Generic[_State, _Event]):
    """Holds a state, and changes it only along a table.

    Arguments:
        name: of what has the state, for errors.
        table: for each state, the next state of each event that is possible in it.
        state: the first one.
    """

    def __init__(
        self, name: str, table: Mapping[_State, Mapping[_Event, _State]], state: _State
    ) -> None:
        self._name = name
        self._table = table
        self._state = state

    @property
    def state(self) -> _State:
        """The present state."""
        return self._state

    def apply(self, event: _Event) -> _State:
        """Change the state by an event; return the new state.

        Raises:
            IllegalEvent: the table has no such event in this state; the state stays.
        """
        try:
            self._state = self._table[self._state][event]
        except KeyError:
            possible = ", ".join(each.name for each in self._table.get(self._state, ())) or "none"
            raise IllegalEvent(
                f"{self._name}: event {event.name} is not possible in state {self._state.name}; "
                f"possible there: {possible}"
            ) from None
        return self._state
