"""``delivery/producers.py``: producers of the Pulsar that the settings name."""

from __future__ import annotations

import asyncio

from celery_stargate.delivery.producers import Producers, PulsarProducers
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.model.topic import Topic
from celery_stargate.testing import LocalPulsar
from celery_stargate.testing.local_pulsar.server import OpenSocket

TOPIC = Topic.parse("orders")


def test_a_producer_opens_with_the_query(local: LocalPulsar) -> None:
    """Beside the options of the topic."""
    producers: Producers = PulsarProducers(Settings(url=local.url))

    async def main() -> list[OpenSocket]:
        producer = producers.make(TOPIC, ProducerOptions(), {"producerName": "stargate-0-abc"})
        assert producer.descriptor is None
        await producer.open()
        try:
            return list(local.connections)
        finally:
            await producer.close()

    (connection,) = asyncio.run(main())
    assert (connection.kind, connection.name) == ("producer", "stargate-0-abc")
