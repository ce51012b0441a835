"""Nothing of one test is left for the next one (tests/conftest.py)."""

from __future__ import annotations

import pytest
from celery import Celery, current_app


def work() -> None:
    """A task of one test."""


@pytest.mark.parametrize("run", [1, 2])
def test_apps_and_their_tasks(run: int) -> None:
    """The second run finds neither the current app of the first one nor its task."""
    assert current_app.main != "isolation"
    app = Celery("isolation")
    assert "isolation.work" not in app.tasks
    app.task(name="isolation.work")(work)
    assert "isolation.work" in Celery("another").tasks
