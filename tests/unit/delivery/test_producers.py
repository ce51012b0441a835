"""``delivery/producers.py``: producers of the Pulsar that the settings name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from celery_stargate.delivery import producers as producers_module
from celery_stargate.delivery.producers import PulsarProducers
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.endpoint import Endpoint

TOPIC = Topic.parse("orders")


def test_deduplication_is_asked_for_by_these_producers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the endpoint of the settings."""
    asked: list[tuple[Any, ...]] = []

    async def require(*args: Any) -> None:
        asked.append(args)

    monkeypatch.setattr(producers_module, "require_deduplication", require)
    settings, options = Settings(url="ws://pulsar.invalid:8080"), ProducerOptions()
    producers = PulsarProducers(settings)
    asyncio.run(producers.require_deduplication(TOPIC, options))
    ((endpoint, topic, given, make),) = asked
    assert (endpoint, topic, given) == (Endpoint.of(settings), TOPIC, options)
    assert make == producers.make
