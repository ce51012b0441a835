"""One lane's producer: a WebSocket to Pulsar that is opened, written and read."""

from __future__ import annotations

import asyncio
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
            raise LinkBroken(
                f"the connection broke while sending: {error}", blame(error)
            ) from error

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
            raise LinkBroken(f"the connection broke: {error}", blame(error)) from error

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
