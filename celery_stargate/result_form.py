"""The form of a plain result: what Celery's backend stores for one, to be filled in for others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import msgspec
from celery.app.task import Context

from .results import ResultBatch

__all__ = ["ResultForm"]

# Neither can be part of anything else that stands in a stored result.
_ID = "stargate-form-id-7d0f5a53-9a2f-4e4c-8b1b-2f3c6a1e9d70"
_RESULT = "stargate-form-result-1c6b1d9e-52a7-4d33-9a55-0c7f4b8e6f21"

_encode = msgspec.json.Encoder().encode


class ResultForm:
    """Fills in the results of tasks that differ in their id and what they return, and nothing else.

    Celery itself stores the result of a stand-in, by all its layers, and keys, names, the date and
    what it knows of the request are its own; each further result takes a small part of that.
    """

    def __init__(
        self, key: Callable[[str], Any], value: Callable[[str, str], str], expires: Any
    ) -> None:
        self._key, self._value, self._expires = key, value, expires

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
        backend.mark_as_done(_ID, _RESULT, request_of())
        if len(batch) == kept:
            return None
        key, value, expires = batch.take_last()
        if isinstance(key, bytes):
            key = key.decode()
        result = f'"{_RESULT}"'
        if not isinstance(value, str) or [key.count(_ID), value.count(_ID)] != [1, 1]:
            return None
        if value.count(result) != 1 or value.count(_RESULT) != 1:
            return None
        before, after = key.split(_ID)
        return cls(
            lambda task_id: f"{before}{task_id}{after}",
            _fill(value, result),
            expires,
        )

    def fill(self, task_id: str, result: Any) -> tuple[str, str, Any]:
        """Return key, value and expiry of a task's result.

        Arguments:
            task_id: printable, and without what JSON escapes.
            result: for JSON.
        """
        return self._key(task_id), self._value(task_id, _encode(result).decode()), self._expires


def _fill(value: str, result: str) -> Callable[[str, str], str]:
    """Return what puts an id and a result's JSON into a stored value."""
    if value.index(_ID) < value.index(result):
        first, rest = value.split(_ID)
        second, last = rest.split(result)
        return lambda task_id, told: f"{first}{task_id}{second}{told}{last}"
    first, rest = value.split(result)
    second, last = rest.split(_ID)
    return lambda task_id, told: f"{first}{told}{second}{task_id}{last}"


def request_of(group: str | None = None, parent_id: str | None = None) -> Context:
    """Return what a backend wants to know of a task's request, where nothing goes on from it."""
    # Headers are given, or Celery looks for custom ones among the names of all fields.
    return Context({"id": None, "group": group, "parent_id": parent_id, "headers": {}})
