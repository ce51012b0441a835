"""The form of a plain result: what Celery's backend stores for one, to be filled in for others."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Self

import msgspec
from celery.app.task import Context

from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.model.follow_up import ResultRow

__all__ = ["Fill", "ResultTemplate"]

# Neither can be part of anything else that stands in a stored result.
_ID = "stargate-form-id-7d0f5a53-9a2f-4e4c-8b1b-2f3c6a1e9d70"
_RESULT = "stargate-form-result-1c6b1d9e-52a7-4d33-9a55-0c7f4b8e6f21"
_QUOTED = f'"{_RESULT}"'

_encode = msgspec.json.Encoder().encode


#: Takes a task's id and its result, which is for JSON. The id is printable, and without what JSON
#: escapes.
Fill = Callable[[str, Any], ResultRow]


class ResultTemplate:
    """Fills in the results of tasks that differ in their id, their moment and what they return.

    Celery itself stores the result of a stand-in, by all its layers, and keys, names and what it
    knows of the request are its own; each further result takes a small part of that.

    Arguments:
        key, value, expires: of the stand-in's result, as :meth:`ResultBatch.take_last` gives them.
        date: the moment as it stands in the value; None where that cannot be told.
    """

    def __init__(self, key: str, value: str, expires: Any, date: str | None) -> None:
        self._key, self._value, self._expires, self._date = key, value, expires, date

    @property
    def lasts(self) -> bool:
        """Whether it serves at other moments than that at which it was made."""
        return self._date is not None

    @classmethod
    def of(cls, batch: ResultBatch) -> Self | None:
        """Have a batch's backend store a stand-in; None where it writes no plain JSON.

        Arguments:
            batch: it is the same afterwards.

        Raises:
            What the backend raises.
        """
        backend = batch.backend
        if backend.serializer != "json":
            return None
        kept = len(batch)
        before = backend.app.now()
        backend.mark_as_done(_ID, _RESULT, request_of())
        if len(batch) == kept:
            return None
        key, value, expires = batch.take_last()
        if isinstance(key, bytes):
            key = key.decode()
        if not isinstance(value, str) or [key.count(_ID), value.count(_ID)] != [1, 1]:
            return None
        if value.count(_QUOTED) != 1 or value.count(_RESULT) != 1:
            return None
        return cls(key, value, expires, _date_in(value, before, backend.app.now()))

    def at(self, date: str) -> Fill:
        """Return what fills it in.

        Arguments:
            date: when the tasks were done, as the app's ``now().isoformat()``; a form that does not
                last keeps its own.
        """
        value = self._value if self._date is None else self._value.replace(self._date, date)
        before, after = self._key.split(_ID)
        fill, expires = _fill(value), int(self._expires or 0)
        return lambda task_id, result: ResultRow(
            f"{before}{task_id}{after}", fill(task_id, _encode(result).decode()), expires
        )


def _date_in(value: str, before: datetime, after: datetime) -> str | None:
    """Return the moment that stands in a stored result; None where it is not the app's ``now()``.

    Arguments:
        before, after: what that was before and after the result was stored.
    """
    try:
        date = json.loads(value)["date_done"]
        found = datetime.fromisoformat(date)
        known = before <= found <= after and found.utcoffset() == after.utcoffset()
    except (ValueError, TypeError, KeyError):
        return None
    return date if known and date == found.isoformat() and value.count(date) == 1 else None


def _fill(value: str) -> Callable[[str, str], str]:
    """Return what puts an id and a result's JSON into a stored value."""
    if value.index(_ID) < value.index(_QUOTED):
        first, rest = value.split(_ID)
        second, last = rest.split(_QUOTED)
        return lambda task_id, told: f"{first}{task_id}{second}{told}{last}"
    first, rest = value.split(_QUOTED)
    second, last = rest.split(_ID)
    return lambda task_id, told: f"{first}{told}{second}{task_id}{last}"


def request_of(group: str | None = None, parent_id: str | None = None) -> Context:
    """Return what a backend wants to know of a task's request, where nothing goes on from it."""
    # Headers are given, or Celery looks for custom ones among the names of all fields.
    return Context({"id": None, "group": group, "parent_id": parent_id, "headers": {}})
