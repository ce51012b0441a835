"""The types of what callers give are those that are read."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from celery_stargate.calls.given import ProducerGiven, TaskGiven
from celery_stargate.model.options import _CELERYS, ProducerOptions, split_task_options
from celery_stargate.task import ProduceTask


def test_the_producer_options_are_all_there() -> None:
    """An option that is new, or goes, is so in the types too."""
    assert ProducerGiven.__optional_keys__ == ProducerOptions.names()


@pytest.mark.parametrize(
    "name", sorted(TaskGiven.__optional_keys__ - ProducerGiven.__optional_keys__)
)
def test_the_others_are_celerys(name: str) -> None:
    """Each is one that ``stargate.task`` takes."""
    _, of_celery = split_task_options({name: None}, dir(ProduceTask), "task")
    assert of_celery == {name: None}


def test_retries_can_be_asked_for() -> None:
    """By all options that Celery reads for them."""
    options = {name for name in _CELERYS if "retry" in name}
    assert options | {"max_retries", "default_retry_delay"} <= TaskGiven.__optional_keys__


def test_they_can_be_read() -> None:
    """By a tool that shows them."""
    assert get_type_hints(TaskGiven)["lanes"] is int
