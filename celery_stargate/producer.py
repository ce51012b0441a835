"""One lane's producer: a WebSocket to Pulsar that is opened, written and read."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from .errors import ConfigurationError
from .log import websocket_logger
from .protocol import Verdict, classify_handshake, handshake_sentence, plain
from .settings import ProducerOptions, Settings, Token
from .topic import Topic, producer_url

__all__ = ["Endpoint", "HandshakeRefused", "LinkBroken", "Producer"]

#: A receipt has some hundred bytes; an error message may have a few thousand.
_MAX_REPLY_SIZE = 64 * 1024
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class LinkBroken(Exception):
    """The connection could not be made, or broke: what has no receipt is sent again."""


class HandshakeRefused(Exception):
    """Pulsar refused the producer."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status = status
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence

    @property
    def permanent(self) -> bool:
        """Whether trying again would not help."""
        return classify_handshake(self.status, self.sentence) is Verdict.PERMANENT


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to reach Pulsar: all that is not a topic's own. Durations are seconds."""

    url: str
    token: Token | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_server_name: str | None = None
    open_timeout: float = 45.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0

    @classmethod
    def of(cls, settings: Settings) -> Endpoint:
        """Return the endpoint that the settings describe.

        Raises:
            ConfigurationError: ``stargate_url`` is not set.
        """
        return cls(
            settings.require_url(),
            settings.token,
            settings.tls_ca,
            settings.tls_certificate,
            settings.tls_key,
            settings.tls_server_name,
            settings.open_timeout,
            settings.ping_interval,
            settings.ping_timeout,
        )

    def headers(self) -> dict[str, str]:
        """Return the headers of the handshake; the token is asked for anew at each.

        Raises:
            ConfigurationError: the token's callable failed, or gave no text.
        """
        if self.token is None:
            return {}
        token: Any = self.token
        if callable(token):
            try:
                token = token()
            except Exception as error:
                raise ConfigurationError(
                    f"the callable in stargate_token failed with {type(error).__name__}"
                ) from error
        if not isinstance(token, str) or not token or not token.isprintable():
            raise ConfigurationError("the callable in stargate_token gave no usable text")
        return {"Authorization": f"Bearer {token.removeprefix('Bearer ')}"}

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context for ``wss``, None for ``ws``.

        Raises:
            ConfigurationError: a file of the TLS settings cannot be read as what it should be.
        """
        if urlsplit(self.url).scheme != "wss":
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_certificate is not None:
                context.load_cert_chain(self.tls_certificate, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                "stargate_tls_ca, stargate_tls_certificate or stargate_tls_key cannot be loaded: "
                f"{error}"
            ) from error
        return context


class _Connection(ClientConnection):
    """Write many messages at once, and read all that came at once.

    A write, or a read with its own wake-up, for each message would cost more than all the rest.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._arrived: list[bytes] = []
        self._fragments: list[bytes] = []
        self._news = asyncio.Event()

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame) or event.opcode not in _DATA:
            super().process_event(event)
            return
        if self._fragments or not event.fin:
            self._fragments.append(bytes(event.data))
            if not event.fin:
                return
            self._arrived.append(b"".join(self._fragments))
            self._fragments.clear()
        else:
            self._arrived.append(bytes(event.data))
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._news.set()

    async def receive_all(self) -> list[bytes]:
        """Return the messages that have come, when there are any.

        Raises:
            ConnectionClosed: as ``recv`` does.
        """
        while not self._arrived:
            if self.protocol.state is State.CLOSED:
                raise self.protocol.close_exc
            self._news.clear()
            await self._news.wait()
        arrived, self._arrived = self._arrived, []
        return arrived

    def rest(self, seconds: float) -> None:
        """Leave what comes with the system for a while, so that more comes together."""
        self.transport.pause_reading()
        self.loop.call_later(seconds, self.transport.resume_reading)

    async def send_all(self, frames: Iterable[bytes]) -> None:
        """Send text messages by one write.

        Raises:
            ConnectionClosed: as ``send`` does.
        """
        async with self.send_context():
            for frame in frames:
                self.protocol.send_text(frame)
            self.transport.write(b"".join(self.protocol.data_to_send()))


class _Connect(connect):
    """Follow no redirect: the token would go where nobody meant it to."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class Producer:
    """An open producer of one topic.

    Arguments:
        endpoint: where Pulsar is.
        topic: where the messages go.
        options: the query parameters.
    """

    def __init__(
        self, endpoint: Endpoint, topic: Topic, options: ProducerOptions, query: str = ""
    ) -> None:
        self._endpoint = endpoint
        self._url = producer_url(endpoint.url, topic, options.query())
        if query:
            self._url += ("&" if "?" in self._url else "?") + query
        self._socket: _Connection | None = None

    async def open(self) -> None:
        """Open the WebSocket; Pulsar creates its producer meanwhile, which can take 30 s.

        Raises:
            HandshakeRefused: Pulsar answered with an HTTP status.
            LinkBroken: there is no connection to be had.
            ConfigurationError: the token or a TLS file is not usable.
        """
        endpoint = self._endpoint
        # A callable that fetches a token may take its time, and must not hold the loop.
        headers = await asyncio.to_thread(endpoint.headers)
        tls = endpoint.tls()
        options: dict[str, Any] = {}
        if tls is not None:
            options["ssl"] = tls
            if endpoint.tls_server_name is not None:
                options["server_hostname"] = endpoint.tls_server_name
        try:
            opened = await _Connect(
                self._url,
                create_connection=_Connection,
                additional_headers=headers,
                compression=None,
                open_timeout=endpoint.open_timeout,
                ping_interval=endpoint.ping_interval,
                ping_timeout=endpoint.ping_timeout,
                close_timeout=5.0,
                max_size=_MAX_REPLY_SIZE,
                proxy=None,
                logger=websocket_logger,
                **options,
            )
            assert isinstance(opened, _Connection)
            self._socket = opened
        except InvalidStatus as refused:
            response = refused.response
            raise HandshakeRefused(
                response.status_code, handshake_sentence(response.status_code, bytes(response.body))
            ) from None
        except (InvalidHandshake, OSError, TimeoutError, EOFError) as error:
            raise LinkBroken(_link_sentence(endpoint.url, error)) from error

    async def send(self, *frames: bytes) -> None:
        """Write some frames, in order, at once.

        Raises:
            LinkBroken: the connection is gone.
        """
        try:
            await self._connection.send_all(frames)
        except (ConnectionClosed, OSError) as error:
            raise LinkBroken(f"the connection broke while sending: {error}") from error

    async def replies(self) -> AsyncIterator[Sequence[bytes]]:
        """Yield Pulsar's replies, those together that came together, until the connection is gone.

        Raises:
            LinkBroken: it is gone, in whichever way.
        """
        receive = self._connection.receive_all
        try:
            while True:
                yield await receive()
        except (ConnectionClosed, OSError) as error:
            raise LinkBroken(f"the connection broke: {error}") from error

    def rest(self, seconds: float) -> None:
        """Read nothing for a while: the replies that come meanwhile are read together."""
        if self._socket is not None:
            self._socket.rest(seconds)

    async def close(self) -> None:
        """Close it, with a close frame where that is still possible, within 5 s."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    def abort(self) -> None:
        """Drop the connection without a word."""
        if self._socket is not None:
            self._socket.transport.abort()

    @property
    def descriptor(self) -> int | None:
        """The socket's file descriptor; None where there is none."""
        if self._socket is None:
            return None
        found = self._socket.transport.get_extra_info("socket")
        return None if found is None or found.fileno() < 0 else int(found.fileno())

    @property
    def _connection(self) -> _Connection:
        if self._socket is None:
            raise LinkBroken("the connection is not open")
        return self._socket


def _link_sentence(url: str, error: BaseException) -> str:
    host = urlsplit(url)
    where = f"{host.scheme}://{host.hostname}:{host.port or (443 if host.scheme == 'wss' else 80)}"
    return f"no connection to {where}: {plain(str(error) or type(error).__name__)}"
