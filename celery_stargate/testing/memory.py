"""An app in memory: eager mode, and topics in the test's own process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from celery import Celery

from celery_stargate.calls.memory import Memory, MemoryMessage
from celery_stargate.calls.runtime import Runtime
from celery_stargate.errors import ConfigurationError
from celery_stargate.testing.configuring import configured
from celery_stargate.testing.produced import ANYTHING, Expected, check_produced
from celery_stargate.testing.receipts import MemoryReceipts

__all__ = ["MemoryPulsar", "eager_settings", "in_memory"]


class MemoryPulsar:
    """The topics of an app whose `stargate_url` is `memory://`.

    Args:
        app: the Celery app.

    Raises:
        ConfigurationError: the app has no Stargate, or another `stargate_url`.

    Example:
        >>> with in_memory(app):
        ...     receipt = stargate.produce("one lamp", topic="orders")
        ...     MemoryPulsar(app).payloads("orders")
        [b'one lamp']
    """

    def __init__(self, app: Celery) -> None:
        self._runtime = Runtime.of(app)
        self.receipts = MemoryReceipts(self._memory)

    @property
    def _memory(self) -> Memory:
        memory = self._runtime.memory
        if memory is None:
            raise ConfigurationError(
                f"messages are not in memory: stargate_url is {self._runtime.settings.url!r}"
            )
        return memory

    @property
    def topics(self) -> Mapping[str, int]:
        """How many messages each topic has, by its full name."""
        return Counter(each.topic for each in self._memory.messages)

    def messages(self, topic: str) -> list[MemoryMessage]:
        """Return a topic's messages in order.

        Args:
            topic: its full name, or its name in the app's settings.
        """
        name = self.full_name(topic)
        return [each for each in self._memory.messages if each.topic == name]

    def payloads(self, topic: str) -> list[bytes]:
        """Return the payloads of `messages(topic)`."""
        return [each.payload for each in self.messages(topic)]

    def full_name(self, topic: str) -> str:
        """Return a topic's full name.

        Raises:
            InvalidMessage: the name is malformed, or is not in `stargate_topics`.
        """
        return str(self._runtime.settings.resolve(topic)[0])

    def clear(self) -> None:
        """Forget all messages, and what `receipts` was told."""
        self._memory.clear()

    def assert_produced(
        self,
        topic: str,
        *,
        payload: Any = ANYTHING,
        key: Any = ANYTHING,
        properties: Mapping[str, Any] | None = None,
        count: int | None = None,
    ) -> list[MemoryMessage]:
        """Check that messages like these were produced, and return them.

        Args:
            topic: its full name, or its name in the app's settings.
            payload: bytes; text; or any JSON value, which is compared with the decoded payload.
            key: the key; None for messages without one.
            properties: properties that the messages have; others do not matter.
            count: how many messages match; None: at least one; 0: none.

        Raises:
            AssertionError: they were not produced; the text shows the nearest messages.
        """
        return check_produced(
            lambda: self.messages(topic),
            self.full_name(topic),
            Expected(payload, key, properties),
            count=count,
            others=lambda: self.topics,
        )


def eager_settings(url: str) -> dict[str, Any]:
    """Return Celery's settings for a test without workers.

    Args:
        url: of Pulsar; `memory://` keeps messages in the process.
    """
    return {
        "task_always_eager": True,
        "task_eager_propagates": True,
        "stargate_url": url,
    }


@contextmanager
def in_memory(app: Celery, **settings: Any) -> Iterator[MemoryPulsar]:
    """Keep what an app produces in memory, and run its tasks and callbacks in the caller's thread.

    In a `unittest` or Django `TestCase`: `self.pulsar = self.enterContext(in_memory(app))`.

    Args:
        app: a Celery app with a Stargate.
        settings: more settings of Celery for this time, such as `task_eager_propagates=False`.

    Returns:
        A context manager that gives the topics.

    Raises:
        ConfigurationError: the app has no Stargate, or a setting is wrong.

    Example:
        >>> with in_memory(app) as pulsar:
        ...     result = produce_task.delay({"json": {"item": "lamp"}}, topic="orders")
        ...     [message] = pulsar.assert_produced("orders", payload={"item": "lamp"})
    """
    with configured(app, **{**eager_settings("memory://"), **settings}):
        yield MemoryPulsar(app)
