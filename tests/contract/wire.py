"""A plain WebSocket client for the contract: no code of celery_stargate's own client."""

from __future__ import annotations

import base64
import html
import json
import re
import ssl
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol, Self
from urllib.parse import quote, urlencode

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from celery_stargate.testing import MessageId
from tests.servers.admin import PulsarAdmin, topic_path
from tests.servers.credentials import TLSFiles

#: What the brokers that demand tokens sign them with.
TOKEN_SECRET = b"a secret of at least thirty-two bytes"
#: The bound on every wait; nothing here should come near it.
WAIT = 20.0
#: How long silence is listened to, where the fact is that nothing comes.
SILENCE = 0.3
#: How long one of several sockets is listened to before the next one's turn.
_TURN = 0.02


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a state that no frame tells of.

    Raises:
        AssertionError: it did not come in time; ``what`` says what was expected.
    """
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, f"not within {WAIT:g} s: {what}"
        time.sleep(_TURN)


def new_topic(domain: str = "persistent") -> str:
    """The full name of a topic that nobody used."""
    return f"{domain}://public/default/contract-{uuid.uuid4().hex[:12]}"


def frame(payload: bytes = b"x", **fields: object) -> str:
    """A producer's frame."""
    return json.dumps({"payload": base64.b64encode(payload).decode(), **fields})


def payload(message: dict[str, Any]) -> bytes:
    """The payload of a delivery."""
    return base64.b64decode(message["payload"], validate=True)


@dataclass
class Refused:
    """A handshake that was answered with a status."""

    status: int
    sentence: str
    content_type: str


class Socket:
    """A WebSocket that is open; a context manager."""

    def __init__(
        self, url: str, headers: dict[str, str], context: ssl.SSLContext | None = None
    ) -> None:
        if context is not None:
            # This client reads in one thread and writes in another, over one TLS session. With TLS
            # 1.3 the tickets that come behind the handshake would be read while the first request
            # is written, and now and then it would not arrive.
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._open = ExitStack()
        self._connection = self._open.enter_context(
            connect(
                url,
                additional_headers=headers,
                ssl=context,
                compression=None,
                open_timeout=45,
                max_size=None,
                proxy=None,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._open.close()

    def send(self, text: str | bytes | dict[str, object]) -> None:
        """Send a frame; a dict as JSON."""
        self._connection.send(json.dumps(text) if isinstance(text, dict) else text)

    def receive(self) -> dict[str, Any]:
        """The next frame."""
        return dict(json.loads(self._connection.recv(timeout=WAIT)))

    def receive_many(self, count: int) -> list[dict[str, Any]]:
        """The next `count` frames."""
        return [self.receive() for _ in range(count)]

    def ask(self, *frames: str) -> list[dict[str, Any]]:
        """Send frames, all at once, and get as many answers."""
        for text in frames:
            self.send(text)
        return self.receive_many(len(frames))

    def receive_or_none(self, timeout: float = SILENCE) -> dict[str, Any] | None:
        """The next frame, or None when nothing comes for a moment."""
        try:
            return dict(json.loads(self._connection.recv(timeout=timeout)))
        except TimeoutError:
            return None

    def silent(self) -> bool:
        """Whether nothing comes for a moment."""
        return self.receive_or_none() is None

    def closed_with(self) -> tuple[int, str] | None:
        """Wait for the end: code and reason of the close frame, None when there was none."""
        try:
            while True:
                self._connection.recv(timeout=WAIT)
        except ConnectionClosed as error:
            return (error.rcvd.code, error.rcvd.reason) if error.rcvd is not None else None

    def acknowledge(self, message: dict[str, Any]) -> None:
        """Acknowledge a delivery."""
        self.send({"messageId": message["messageId"]})

    def negative(self, message: dict[str, Any]) -> None:
        """Ask for a delivery again."""
        self.send({"type": "negativeAcknowledge", "messageId": message["messageId"]})


class Server(Protocol):
    """What can be killed and started again."""

    def start(self) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Broker:
    """One of the two peers of the contract.

    `token` is the super user's, where tokens are demanded; `secure_url` and `tls` are there where
    it has TLS, `server` where a test may kill it.
    """

    url: str
    http_url: str
    token: str | None = None
    secure_url: str = ""
    tls: TLSFiles | None = None
    server: Server | None = None

    @property
    def admin(self) -> PulsarAdmin:
        """Its admin API."""
        return PulsarAdmin(self.http_url, token=self.token)

    def open_path(self, path: str, token: str | None = None) -> Socket:
        """A socket for a path and query.

        The broker frees a name, or an exclusive subscription, a moment after its socket's close
        handshake: until then it answers 409.

        Raises:
            InvalidStatus: the handshake is refused; with a 409, for longer than that.
        """
        end = time.monotonic() + WAIT
        while True:
            try:
                return self._open(path, token)
            except InvalidStatus as error:
                if error.response.status_code != HTTPStatus.CONFLICT or time.monotonic() > end:
                    raise
            time.sleep(_TURN)

    def _open(self, path: str, token: str | None) -> Socket:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return Socket(self.url + path, headers)

    def refusal(self, path: str, token: str | None = None) -> Refused:
        """How the handshake for a path is refused.

        Raises:
            AssertionError: it is not.
        """
        try:
            self._open(path, token).close()
        except InvalidStatus as error:
            response = error.response
            body = bytes(response.body or b"").decode("latin-1")
            found = re.search(r"<th>MESSAGE:</th><td>(.*?)</td>", body, re.DOTALL)
            sentence = html.unescape(found.group(1)) if found else ""
            return Refused(response.status_code, sentence, response.headers.get("Content-Type", ""))
        raise AssertionError(f"{path} was not refused")

    def producer(self, topic: str, token: str | None = None, /, **query: object) -> Socket:
        """A producer's socket."""
        return self.open_path(producer_path(topic, **query), token)

    def reader(self, topic: str, **query: object) -> Socket:
        """A reader's socket."""
        return self.open_path(f"/ws/v2/reader/{topic_path(topic)}{_query(query)}")

    def consumer(self, topic: str, subscription: str = "s", /, **query: object) -> Socket:
        """A consumer's socket."""
        return self.open_path(consumer_path(topic, subscription, **query))

    def read_back(self, topic: str, count: int) -> list[dict[str, Any]]:
        """The first `count` messages of a topic, each answered as a reader must."""
        out = []
        with self.reader(topic, messageId="earliest") as reader:
            for _ in range(count):
                message = reader.receive()
                reader.acknowledge(message)
                out.append(message)
            assert reader.silent(), "the topic holds more"
        return out


def receive_from(sockets: Sequence[Socket], count: int) -> list[list[dict[str, Any]]]:
    """Receive and acknowledge `count` deliveries, however they are shared; a list for each socket.

    Raises:
        AssertionError: fewer came in time, or more.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in sockets]
    end = time.monotonic() + WAIT
    while (got := sum(map(len, found))) < count:
        assert time.monotonic() < end, f"{got} of {count} deliveries came in {WAIT:g} s"
        for socket, mine in zip(sockets, found, strict=True):
            while (message := socket.receive_or_none(_TURN)) is not None:
                socket.acknowledge(message)
                mine.append(message)
    assert all(socket.silent() for socket in sockets), "more came"
    return found


def producer_path(topic: str, **query: object) -> str:
    """Path and query of a producer."""
    return f"/ws/v2/producer/{topic_path(topic)}{_query(query)}"


def consumer_path(topic: str, subscription: str = "s", **query: object) -> str:
    """Path and query of a consumer."""
    return f"/ws/v2/consumer/{topic_path(topic)}/{quote(subscription, safe='')}{_query(query)}"


def _query(query: dict[str, object]) -> str:
    return f"?{urlencode(query)}" if query else ""


def ids(receipts: Sequence[dict[str, Any]]) -> list[MessageId]:
    """The message ids of receipts that are all ok."""
    assert [receipt["result"] for receipt in receipts] == ["ok"] * len(receipts), receipts
    return [MessageId.decode(receipt["messageId"]) for receipt in receipts]
