"""Templates of result rows: Celery's backend makes one row, others are filled in from it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Protocol, Self

import msgspec
from celery.app.task import Context

from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.model.follow_up import ResultRow

__all__ = ["Fill", "ResultTemplate"]

# Stand-ins for id and result, chosen so that nothing else in a stored result contains them.
_ID = "stargate-form-id-7d0f5a53-9a2f-4e4c-8b1b-2f3c6a1e9d70"
_RESULT = "stargate-form-result-1c6b1d9e-52a7-4d33-9a55-0c7f4b8e6f21"
_GROUP = "stargate-form-group-0f0b7f7e-6c55-4d0e-8a39-5d2b9e1c4a77"
_PARENT = "stargate-form-parent-93c1f9a2-1f4e-4b6b-9d0a-7e0d5c2b8f10"
_QUOTED = f'"{_RESULT}"'

_IN_ORDER = (_ID, _QUOTED, _GROUP, _PARENT)
_STAND_INS = re.compile(f"({'|'.join(map(re.escape, _IN_ORDER))})")

_encode = msgspec.json.Encoder().encode


class Fill(Protocol):
    """Makes a row."""

    def __call__(
        self, task_id: str, result: Any, group: str | None = None, parent: str | None = None
    ) -> ResultRow:
        """Return the row of a result.

        Arguments:
            task_id, group, parent: plain ids (:func:`is_plain_id`).
            result: what JSON must be able to represent.
        """


class ResultTemplate:
    """Makes rows for tasks that differ in nothing but ids, ``date_done`` and result.

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
    def of(cls, batch: ResultBatch, group: bool = False, parent: bool = False) -> Self | None:
        """Let a batch's backend make the row of a stand-in; None if the value is not plain JSON.

        Arguments:
            batch: unchanged afterwards.
            group, parent: whether the results have them.

        Raises:
            What the backend raises.
        """
        backend = batch.backend
        if backend.serializer != "json":
            return None
        kept = len(batch)
        before = backend.app.now()
        request = request_of(_GROUP if group else None, _PARENT if parent else None)
        backend.mark_as_done(_ID, _RESULT, request)
        if len(batch) == kept:
            return None
        key, value, expires = batch.take_last()
        if not isinstance(value, str) or [key.count(_ID), value.count(_ID)] != [1, 1]:
            return None
        if value.count(_QUOTED) != 1 or value.count(_RESULT) != 1:
            return None
        if [value.count(_GROUP), value.count(_PARENT)] != [group, parent]:
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
        # The texts between the stand-ins have even places, the stand-ins odd ones.
        parts, expires = _STAND_INS.split(value), self._expires
        places = [parts.index(each) if each in parts else None for each in _IN_ORDER]

        def fill(
            task_id: str, result: Any, group: str | None = None, parent: str | None = None
        ) -> ResultRow:
            texts = (task_id, _encode(result).decode(), group, parent)
            for place, text in zip(places, texts, strict=True):
                if place is not None:
                    parts[place] = text or ""
            return ResultRow(f"{before}{task_id}{after}", "".join(parts), expires)

        return fill


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


def request_of(group: str | None = None, parent_id: str | None = None) -> Context:
    """Return the request that a backend needs for a result from which nothing goes on."""
    # Without headers Celery would search all fields for custom ones.
    return Context({"id": None, "group": group, "parent_id": parent_id, "headers": {}})
