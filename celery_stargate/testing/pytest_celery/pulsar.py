"""A Pulsar broker in a container, for pytest-celery."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from pytest_celery import CeleryTestContainer
from websockets.sync.client import connect

from celery_stargate import Message

__all__ = [
    "PULSAR_CONTAINER_TIMEOUT",
    "PULSAR_ENV",
    "PULSAR_IMAGE",
    "PULSAR_PORTS",
    "PulsarTestContainer",
]

#: The public image; override the fixture ``default_pulsar_image`` to use another.
PULSAR_IMAGE = "apachepulsar/pulsar:4.0.7"
#: The web service, which serves the WebSocket API and the admin API, gets a free port of the host.
PULSAR_PORTS: Mapping[str, int | None] = {"8080/tcp": None}
#: Settings of the broker, and the memory of its Java machine.
PULSAR_ENV: Mapping[str, str] = {
    "PULSAR_MEM": "-Xms256m -Xmx512m -XX:MaxDirectMemorySize=512m",
    "webSocketServiceEnabled": "true",
    # Without it, `stargate_delivery="effectively_once"` is refused.
    "brokerDeduplicationEnabled": "true",
    # A topic that a test looks at must not go away while it is idle.
    "brokerDeleteInactiveTopicsEnabled": "false",
}
#: Attempts, about one a second, until the broker must be ready.
PULSAR_CONTAINER_TIMEOUT = 120

_WEB_PORT = "8080/tcp"
#: Seconds for one call of the admin API.
_ADMIN_TIMEOUT = 5.0
#: Opening a WebSocket makes Pulsar look up the topic, which takes seconds on a busy machine.
_OPEN_TIMEOUT = 45.0


def _topic_path(topic: str) -> str:
    """Return a topic's full name as the paths of URLs have it."""
    domain, separator, rest = topic.partition("://")
    parts = rest.split("/", 2)
    if not separator or len(parts) != 3:
        raise ValueError(f"topic {topic!r} is not of the form persistent://TENANT/NAMESPACE/TOPIC")
    return "/".join(quote(part, safe="") for part in (domain, *parts))


class PulsarTestContainer(CeleryTestContainer):
    """A container that runs a standalone Pulsar broker with its WebSocket service.

    It is ready when the namespace ``public/default`` exists and the broker stores messages.
    Use it as ``wrapper_class`` of ``pytest_docker_tools.container``, or take the fixture
    ``default_pulsar_container``. The class methods give that fixture its defaults.

    It has more methods than a class should: half of them are pytest-celery's, and have its names.
    """

    @classmethod
    def image(cls) -> str:
        """Return the name of the image."""
        return PULSAR_IMAGE

    @classmethod
    def version(cls) -> str:
        """Return the image's tag."""
        return cls.image().rpartition(":")[2]

    @classmethod
    def ports(cls) -> dict[str, int | None]:
        """Return the ports of the container, each with the host's port; None is a free one."""
        return dict(PULSAR_PORTS)

    @classmethod
    def initial_env(cls) -> dict[str, str]:
        """Return the environment: each name that the broker's configuration file has sets it."""
        return dict(PULSAR_ENV)

    @classmethod
    def command(cls, *args: str, **kwargs: Any) -> list[str]:  # noqa: ARG003
        """Return the command that starts the broker with the settings of its environment.

        Args:
            args: more arguments for ``bin/pulsar standalone``.
            kwargs: what pytest-celery's interface has (``debugpy``); it has no meaning here.
        """
        standalone = " ".join(("bin/pulsar standalone -nfw -nss", *args))
        script = f"bin/apply-config-from-env.py conf/standalone.conf && exec {standalone}"
        return ["bash", "-c", script]

    @property
    def hostname(self) -> str:
        """The broker's name in the containers' network."""
        return str(self.attrs["Config"]["Hostname"])

    @property
    def port(self) -> int:
        """The port of the web service as this process reaches it.

        Raises:
            IndexError: the container does not run.
        """
        return int(self.get_addr(_WEB_PORT)[1])

    @property
    def url(self) -> str:
        """The ``stargate_url`` for the other containers."""
        return f"ws://{self.hostname}:8080"

    @property
    def host_url(self) -> str:
        """The ``stargate_url`` for this process."""
        return f"ws://{self._address}"

    @property
    def admin_url(self) -> str:
        """The base of the admin API's URLs for this process."""
        return f"http://{self._address}/admin/v2"

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """What pytest-celery's nodes and clusters compile configurations from."""
        return {
            "url": self.url,
            "host_url": self.host_url,
            "hostname": self.hostname,
            "port": self.port,
        }

    @property
    def _address(self) -> str:
        host, port = self.get_addr(_WEB_PORT)
        return f"{host}:{port}"

    def ready(self) -> bool:
        """Tell whether the broker stores messages.

        Raises:
            pytest_docker_tools.exceptions.ContainerFailed: the container has ended.
        """
        return bool(super().ready()) and self._stores()

    def _stores(self) -> bool:
        # The namespace is made last, after the broker answers.
        try:
            namespaces = self.admin("GET", "namespaces/public")
            return "public/default" in namespaces and self.admin("GET", "brokers/health") == "ok"
        except OSError:
            return False

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """Call Pulsar's admin API.

        Args:
            method: ``GET``, ``PUT``, ``POST`` or ``DELETE``.
            path: what follows ``/admin/v2/``, such as ``persistent/public/default``.
            body: what is sent as JSON.

        Returns:
            The answer: its JSON, its text where it is no JSON, None where it is empty.

        Raises:
            urllib.error.HTTPError: the broker refused the call.
            OSError: the broker was not reached, or did not answer in five seconds.
        """
        request = urllib.request.Request(  # noqa: S310  # the URL is ours
            f"{self.admin_url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=_ADMIN_TIMEOUT) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            # Its file is a socket, which an error that is kept would hold open.
            error.close()
            raise
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text

    def stored(self, topic: str) -> int:
        """Return how many entries a topic holds.

        Args:
            topic: its full name, ``persistent://TENANT/NAMESPACE/TOPIC``.

        Raises:
            ValueError: the name is not a full one.
            urllib.error.HTTPError: the topic does not exist.
            OSError: as :meth:`admin`.
        """
        return int(self.admin("GET", f"{_topic_path(topic)}/internalStats")["numberOfEntries"])

    def read(self, topic: str, count: int, timeout: float = 30.0) -> list[Message]:
        """Read a topic from its first message.

        Args:
            topic: its full name, ``persistent://TENANT/NAMESPACE/TOPIC``.
            count: how many messages to wait for.
            timeout: seconds for all of them, once the reader is connected.

        Returns:
            The messages in the topic's order, with payload (bytes), key and properties.

        Raises:
            ValueError: the name is not a full one.
            TimeoutError: fewer messages came in time.
            OSError, websockets.exceptions.WebSocketException: the reader could not connect, or
                its connection was lost.
        """
        url = f"{self.host_url}/ws/v2/reader/{_topic_path(topic)}?messageId=earliest"
        found: list[Message] = []
        with connect(
            url, compression=None, open_timeout=_OPEN_TIMEOUT, max_size=None, proxy=None
        ) as reader:
            end = time.monotonic() + timeout
            while len(found) < count:
                try:
                    frame = json.loads(reader.recv(timeout=max(0.0, end - time.monotonic())))
                except TimeoutError:
                    raise TimeoutError(
                        f"{len(found)} of {count} messages of {topic} came in {timeout:g} s"
                    ) from None
                reader.send(json.dumps({"messageId": frame["messageId"]}))
                found.append(
                    Message(
                        payload=base64.b64decode(frame["payload"]),
                        key=frame.get("key"),
                        properties=frame.get("properties") or None,
                    )
                )
        return found
