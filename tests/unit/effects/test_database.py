"""``effects/database.py``: connections of the effects' threads, as Celery's Django fix-up does."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from celery.fixups.django import DjangoFixup

from celery_stargate.effects.database import call_where_allowed, own_connections


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to Django's connections."""
    found: list[str] = []
    database: Any = SimpleNamespace(close_old_connections=lambda: found.append("old"))
    monkeypatch.setitem(sys.modules, "django.db", database)
    return found


def app_with_fixup(steps: list[str], error: Exception | None = None) -> Any:
    """Return an app as Celery makes it in a Django project."""

    def close_database() -> None:
        steps.append("database")
        if error is not None:
            raise error

    fixup = DjangoFixup.__new__(DjangoFixup)
    vars(fixup)["_worker_fixup"] = SimpleNamespace(
        close_database=close_database, close_cache=lambda: steps.append("cache")
    )
    return SimpleNamespace(_fixups=[object(), fixup])


def test_connections_are_closed_before_and_after(steps: list[str]) -> None:
    """Whatever the effects end with: one that the database dropped would fail for ever."""
    app = app_with_fixup(steps)
    with pytest.raises(KeyError), own_connections(app):
        steps.append("effects")
        raise KeyError
    assert steps == ["old", "database", "cache", "effects", "old", "database", "cache"]


def test_connections_that_cannot_be_closed(
    steps: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Are logged, and the effects are done."""
    with own_connections(app_with_fixup(steps, OSError("gone"))):
        steps.append("effects")
    assert "effects" in steps
    assert caplog.text.count("cannot be closed") == 2


def test_an_app_without_django(steps: list[str]) -> None:
    """Has no connections to close."""
    without: list[Any] = [SimpleNamespace(), SimpleNamespace(_fixups=None)]
    for app in without:
        with own_connections(app):
            pass
    assert steps == []


def test_where_django_allows_database_calls(steps: list[str]) -> None:
    """Not in the thread of an event loop; without Django it matters to nobody."""

    async def main() -> None:
        here = threading.get_ident()
        assert await call_where_allowed(app_with_fixup(steps), threading.get_ident) != here
        app: Any = SimpleNamespace()
        assert await call_where_allowed(app, threading.get_ident) == here

    asyncio.run(main())
