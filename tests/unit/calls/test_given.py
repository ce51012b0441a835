"""The types of what callers give are those that are read."""

from __future__ import annotations

from typing import get_type_hints

import pytest
from celery import Task

from celery_stargate.calls.given import ProducerGiven, TaskGiven
from celery_stargate.model.options import ProducerOptions


def test_the_producer_options_are_all_there() -> None:
    """An option that is new, or goes, is so in the types too."""
    assert ProducerGiven.__optional_keys__ == ProducerOptions.names()


@pytest.mark.parametrize(
    "name", sorted(TaskGiven.__optional_keys__ - ProducerGiven.__optional_keys__)
)
def test_the_others_are_celerys(name: str) -> None:
    """Each is an attribute of a task, an option of ``app.task``, or an option of sending."""
    of_sending = {"queue", "exchange", "routing_key", "shared"}
    assert name in of_sending or hasattr(Task, name)


def test_they_can_be_read() -> None:
    """By a tool that shows them."""
    assert get_type_hints(TaskGiven)["lanes"] is int
