"""Make producers of Pulsar topics, and ask whether the broker deduplicates a topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlencode

from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.deduplication import require_deduplication
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.producer import Producer

__all__ = ["Producers", "PulsarProducers"]


class Producers(Protocol):
    """What the senders need of Pulsar."""

    def make(self, topic: Topic, options: ProducerOptions, query: Mapping[str, str], /) -> Producer:
        """Return a producer that is not open yet.

        Arguments:
            query: more query parameters than those of the options.
        """

    async def require_deduplication(self, topic: Topic, options: ProducerOptions, /) -> None:
        """Return if the broker deduplicates a topic.

        Raises:
            DeduplicationUnavailable: it does not.
            HandshakeRefused, LinkBroken: it cannot be asked now.
        """


class PulsarProducers:
    """Producers of the Pulsar that an app's settings name.

    Arguments:
        settings: of the app.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def make(self, topic: Topic, options: ProducerOptions, query: Mapping[str, str]) -> Producer:
        """Return a producer that is not open yet.

        Raises:
            ConfigurationError: a setting of the connection is wrong or missing.
        """
        return Producer(Endpoint.of(self._settings), topic, options, urlencode(query))

    async def require_deduplication(self, topic: Topic, options: ProducerOptions) -> None:
        """Return if the broker deduplicates a topic.

        Raises:
            DeduplicationUnavailable: it does not, or nobody can tell.
            HandshakeRefused, LinkBroken: it cannot be asked now.
            ConfigurationError: the token or a TLS file is not usable.
        """
        endpoint = Endpoint.of(self._settings)
        await require_deduplication(endpoint, topic, options, self.make)
