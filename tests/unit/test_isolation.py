"""Nothing of one test is left for the next one (tests/conftest.py)."""

from __future__ import annotations

import logging

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


@pytest.mark.parametrize("run", [1, 2])
@pytest.mark.parametrize("name", ["", "celery.task", "celery_stargate"])
def test_the_log(name: str, run: int) -> None:
    """The second run finds a logger as the first one did, though it was set up as a worker does."""
    logger = logging.getLogger(name)
    assert logger.propagate
    assert logger.level != logging.ERROR
    assert "isolation" not in [each.name for each in logger.handlers]
    handler = logging.StreamHandler()
    handler.name = "isolation"
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
