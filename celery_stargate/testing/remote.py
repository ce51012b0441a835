"""A real Pulsar, as a test's assertions see it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from unittest import SkipTest
from urllib.parse import quote

import msgspec
from websockets.sync.client import connect

from celery_stargate.model.topic import Topic
from celery_stargate.testing.local_pulsar.faults import Faults
from celery_stargate.testing.produced import ANYTHING, Expected, check_produced
from celery_stargate.testing.receipts import Receipts

__all__ = ["RemoteMessage", "RemotePulsar"]

_NO_FAULTS = "a real Pulsar has no faults on demand; run this test without stargate_url"
#: How long the end of a topic is silent before it is taken for the end, in seconds.
_SILENCE = 0.5


class RemoteMessage(msgspec.Struct, frozen=True):
    """A message in a topic of a real Pulsar."""

    topic: str
    payload: bytes
    key: str | None
    properties: dict[str, str]
    message_id: str
    publish_time_ms: int


class RemotePulsar:
    """Reads what a test produced from a real Pulsar: what was published since this was made.

    The clocks of both machines must agree.

    Args:
        url: its WebSocket service, `ws://HOST:PORT`.
        token: a token, if it needs one.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.aliases: dict[str, str] = {}
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._since_ms = int(time.time() * 1000)

    @property
    def faults(self) -> Faults:
        """Skip the test: only a `LocalPulsar` has faults.

        Raises:
            unittest.SkipTest: always.
        """
        raise SkipTest(_NO_FAULTS)

    @property
    def receipts(self) -> Receipts:
        """Skip the test: only a `LocalPulsar` and an app in memory hold receipts.

        Raises:
            unittest.SkipTest: always.
        """
        raise SkipTest(_NO_FAULTS)

    def messages(self, topic: str) -> list[RemoteMessage]:
        """Return a topic's messages in order, those of this test only.

        Args:
            topic: its full name, its name in `public/default`, or one of the `aliases`.
        """
        name = self._full(topic)
        domain, _, path = str(name).partition("://")
        tenant, namespace, local = path.split("/", 2)
        url = f"{self.url}/ws/v2/reader/{domain}/{tenant}/{namespace}/{quote(local, safe='')}"
        found: list[RemoteMessage] = []
        with connect(
            f"{url}?messageId=earliest",
            additional_headers=self._headers,
            compression=None,
            open_timeout=45,
            max_size=None,
            proxy=None,
        ) as reader:
            while True:
                try:
                    read = json.loads(reader.recv(_SILENCE))
                except TimeoutError:
                    return found
                reader.send(json.dumps({"messageId": read["messageId"]}))
                message = _message(str(name), read)
                if message.publish_time_ms >= self._since_ms:
                    found.append(message)

    def payloads(self, topic: str) -> list[bytes]:
        """Return the payloads of `messages(topic)`."""
        return [each.payload for each in self.messages(topic)]

    def assert_produced(
        self,
        topic: str,
        *,
        payload: Any = ANYTHING,
        key: Any = ANYTHING,
        properties: Mapping[str, Any] | None = None,
        count: int | None = None,
        timeout: float = 10.0,
    ) -> list[RemoteMessage]:
        """Check that messages like these are in a topic, or come soon, and return them.

        Arguments and errors are those of `LocalPulsar.assert_produced`.
        """
        return check_produced(
            lambda: self.messages(topic),
            str(self._full(topic)),
            Expected(payload, key, properties),
            count=count,
            timeout=timeout,
        )

    def _full(self, topic: str) -> Topic:
        return Topic.parse(self.aliases.get(topic, topic))


def _message(topic: str, read: dict[str, Any]) -> RemoteMessage:
    published = datetime.fromisoformat(read["publishTime"])
    return RemoteMessage(
        topic,
        base64.b64decode(read["payload"]),
        read.get("key"),
        read.get("properties") or {},
        read["messageId"],
        int(published.timestamp() * 1000),
    )
