"""Fixtures of the outbox's unit tests: SQLite, and lanes in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.django_project.setup import configure, empty, migrate
from tests.django_project.world import FakeLanes, make_stargate

configure()


@pytest.fixture
def using() -> Iterator[str]:
    """The database of a test, emptied afterwards."""
    migrate("default")
    empty("default")
    yield "default"
    empty("default")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLanes:
    """Lanes in memory, in the place of those in Redis."""
    from celery_stargate.contrib.django import dead_letters, handover, lanes

    fake, stargate = FakeLanes(), make_stargate()
    monkeypatch.setattr(lanes, "current_stargate", lambda: stargate)
    monkeypatch.setattr(lanes, "record", fake.record)
    monkeypatch.setattr(lanes, "find_contexts", fake.find_contexts)
    monkeypatch.setattr(lanes, "trigger", fake.trigger)
    monkeypatch.setattr(dead_letters, "forget", fake.forget)
    monkeypatch.setattr(handover, "_breaker", handover._Breaker())
    return fake
