"""Which fields of a task's request are headers of the user."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from celery.app.task import Context

__all__ = ["user_headers"]


def user_headers(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers of the user in a task's request, as ``task.request.headers`` has them.

    Arguments:
        fields: of the request, as ``celery.app.task.Context`` takes them.
    """
    given = fields.get("headers")
    if given is None:
        return {name: fields[name] for name in _names_of_users(frozenset(fields))}
    return dict(given)


@lru_cache(maxsize=64)
def _names_of_users(names: frozenset[str]) -> frozenset[str]:
    """Return which names of fields Celery takes for headers of the user.

    Celery looks at nothing but names, and takes longer over it than everything else that is done
    with a request, so the answer is kept.
    """
    return frozenset(Context(dict.fromkeys(names - {"headers"})).headers or ())
