"""Templates of result rows: Celery's backend makes one row, others are filled in from it."""

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

# Stand-ins for id and result, chosen so that nothing else in a stored result contains them.
_ID = "stargate-form-id-7d0f5a53-9a2f-4e4c-8b1b-2f3c6a1e9d70"
_RESULT = "stargate-form-result-1c6b1d9e-52a7-4d33-9a55-0c7f4b8e6f21"
_QUOTED = f'"{_RESULT}"'

_encode = msgspec.json.Encoder().encode


#: Takes a task's id, which must be plain (:func:`is_plain_id`), and its result, which JSON must be
#: able to represent.
Fill = Callable[[str, Any], ResultRow]


class ResultTemplate:
    """Makes rows for tasks that differ in nothing but their id, ``date_done`` and result.

    Celery's backend makes the row of a stand-in, with all its layers, so keys, field names and
    request fields are Celery's own. Each further row costs a small part of that.

    Arguments:
        key, value, expires: of the stand-in's row.
        date: ``date_done`` as the value has it; None if it cannot be found for sure.
    """

    def __init__(self, key: str, value: str, expires: int, date: str | None) -> None:
        self._key, self._value, self._expires, self._date = key, value, expires, date

    @property
    def lasts(self) -> bool:
        """Whether it may be used later than it was made: its date can be replaced."""
        return self._date is not None

    @classmethod
    def of(cls, batch: ResultBatch) -> Self | None:
        """Let a batch's backend make the row of a stand-in; None if the value is not plain JSON.

        Arguments:
            batch: unchanged afterwards.

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
        if not isinstance(value, str) or [key.count(_ID), value.count(_ID)] != [1, 1]:
            return None
        if value.count(_QUOTED) != 1 or value.count(_RESULT) != 1:
            return None
        return cls(key, value, expires, _date_in(value, before, backend.app.now()))

    def at(self, date: str) -> Fill:
        """Return what makes rows for one moment.

        Arguments:
            date: that moment, as the app's ``now().isoformat()``; a template that does not last
                keeps its own.
        """
        value = self._value if self._date is None else self._value.replace(self._date, date)
        before, after = self._key.split(_ID)
        fill, expires = _fill(value), self._expires
        return lambda task_id, result: ResultRow(
            f"{before}{task_id}{after}", fill(task_id, _encode(result).decode()), expires
        )


def _date_in(value: str, before: datetime, after: datetime) -> str | None:
    """Return ``date_done`` of a stored result; None if it is not the app's ``now()``.

    Arguments:
        before, after: the app's ``now()`` before and after the result was made.
    """
    try:
        date = json.loads(value)["date_done"]
        found = datetime.fromisoformat(date)
        known = before <= found <= after and found.utcoffset() == after.utcoffset()
    except (ValueError, TypeError, KeyError):
        return None
    return date if known and date == found.isoformat() and value.count(date) == 1 else None


def _fill(value: str) -> Callable[[str, str], str]:
    """Return what puts an id and the JSON of a result into a stored value."""
    if value.index(_ID) < value.index(_QUOTED):
        first, rest = value.split(_ID)
        second, last = rest.split(_QUOTED)
        return lambda task_id, result: f"{first}{task_id}{second}{result}{last}"
    first, rest = value.split(_QUOTED)
    second, last = rest.split(_ID)
    return lambda task_id, result: f"{first}{result}{second}{task_id}{last}"


def request_of(group: str | None = None, parent_id: str | None = None) -> Context:
    """Return the request that a backend needs for a result from which nothing goes on."""
    # Without headers Celery would search all fields for custom ones.
    return Context({"id": None, "group": group, "parent_id": parent_id, "headers": {}})
