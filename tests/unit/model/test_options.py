"""Producer options: Pulsar's query parameters, and the options of a produce task."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate import ConfigurationError
from celery_stargate.model.options import ProducerOptions, split_task_options


@pytest.mark.parametrize(
    ("max_in_flight", "max_pending_messages", "size"),
    [(100, None, 100), (100, 10, 10), (10, 100, 10)],
)
def test_the_window_is_no_larger_than_pulsars_queue(
    max_in_flight: int, max_pending_messages: int | None, size: int
) -> None:
    options = ProducerOptions(
        max_in_flight=max_in_flight,
        batching_enabled=True,
        max_pending_messages=max_pending_messages,
    )
    assert options.window_size == size


def test_a_tasks_options_are_split() -> None:
    """Into those of its producer and those of Celery."""
    producers, celerys = split_task_options(
        {"max_in_flight": 5, "rate_limit": "1/s"}, {"rate_limit"}, "produce_task()"
    )
    assert producers == {"max_in_flight": 5}
    assert celerys == {"rate_limit": "1/s"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_in_fligth": 5}, r"task\(\): there is no option 'max_in_fligth'.*'max_in_flight'"),
        ({"_private": 5}, "there is no option '_private'"),
        ({"max_in_flight": "many"}, r"task\(\): max_in_flight must be"),
    ],
)
def test_a_tasks_wrong_option(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        split_task_options(options, {"_private", "rate_limit"}, "task()")
