"""Which fields of a request are headers of the user: those that Celery takes for such."""

from __future__ import annotations

from typing import Any

import pytest
from celery.app.task import Context

from celery_stargate.effects.headers import user_headers


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"id": "a", "lang": "py", "task": "t", "argsrepr": "()", "timelimit": [1, 2]},
        {"id": "a", "tenant": "t", "trace": {"a": 1}},
        {"id": "a", "tenant": "t", "headers": None},
        {"id": "a", "tenant": "t", "headers": {}},
        {"id": "a", "tenant": "t", "headers": {"own": 1}},
        {"headers": {"own": 1}},
    ],
)
def test_as_in_a_request(fields: dict[str, Any]) -> None:
    """Whatever the values are, the first time and the next."""
    expected = Context(fields).headers or {}
    assert user_headers(fields) == user_headers(fields) == expected


def test_each_has_its_own() -> None:
    """What is done with them changes no request."""
    given = {"headers": {"own": 1}}
    user_headers(given)["other"] = 2
    assert given == {"headers": {"own": 1}}
