"""A producer: one WebSocket to Pulsar."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic, producer_url
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.link import HandshakeRefused, LinkBroken, _link_sentence, blame
from celery_stargate.pulsar.sentences import handshake_sentence
from celery_stargate.pulsar.socket import _MAX_REPLY_SIZE, _Connect, _Connection
from celery_stargate.support.log import websocket_logger

__all__ = ["Producer"]


class Producer:
    """A producer of one topic. Call :meth:`open` first.

    Arguments:
        endpoint: how to reach Pulsar.
        topic: where the messages go.
        options: the topic's options, sent as query parameters.
        query: further query parameters, already encoded.
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
        """Open the WebSocket. Pulsar creates its producer meanwhile, which can take 30 s.

        Raises:
            HandshakeRefused: Pulsar answered with an HTTP error.
            LinkBroken: the connection cannot be made.
            ConfigurationError: the token or a TLS file is not usable.
        """
        endpoint = self._endpoint
        headers = await endpoint.fetch_headers()
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
        # A name that cannot be encoded to be looked up raises a UnicodeError.
        except (InvalidHandshake, OSError, TimeoutError, EOFError, UnicodeError) as error:
            raise LinkBroken(_link_sentence(endpoint.url, error)) from error

    async def send(self, *frames: bytes) -> None:
        """Write frames in order, in one write.

        Raises:
            LinkBroken: the connection is lost.
        """
        try:
            await self._connection.send_all(frames)
        except (ConnectionClosed, OSError) as error:
            raise LinkBroken(
                f"the connection broke while sending: {error}", blame(error)
            ) from error

    async def replies(self) -> AsyncIterator[Sequence[bytes]]:
        """Yield lists of Pulsar's replies as they arrive, until the connection ends.

        Raises:
            LinkBroken: the connection ended, for whatever reason.
        """
        receive = self._connection.receive_all
        try:
            while True:
                yield await receive()
        except (ConnectionClosed, OSError) as error:
            raise LinkBroken(f"the connection broke: {error}", blame(error)) from error

    def rest(self, seconds: float) -> None:
        """Pause reading for some seconds, so that the replies of that time are read together."""
        if self._socket is not None:
            self._socket.rest(seconds)

    async def close(self) -> None:
        """Close the connection within 5 s, with a close frame if possible."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    def abort(self) -> None:
        """Drop the connection without a close frame."""
        if self._socket is not None:
            self._socket.transport.abort()

    @property
    def descriptor(self) -> int | None:
        """The socket's file descriptor; None without a connection."""
        if self._socket is None:
            return None
        found = self._socket.transport.get_extra_info("socket")
        return None if found is None or found.fileno() < 0 else int(found.fileno())

    @property
    def _connection(self) -> _Connection:
        if self._socket is None:
            raise LinkBroken("the connection is not open")
        return self._socket
