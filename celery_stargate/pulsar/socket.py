"""The WebSocket connection: the websockets client, with batched reads and writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

__all__ = []


#: A receipt has some hundred bytes; an error message may have a few thousand.
_MAX_REPLY_SIZE = 64 * 1024


_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class _Connection(ClientConnection):
    """Write many messages in one write, and read all messages that have arrived at once.

    One write or one wake-up for each message would cost more than everything else.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._arrived: list[bytes] = []
        #: The message that has begun and not ended; None between messages. Bytes, and no list: a
        #: server may send fragments without content for ever.
        self._partial: bytearray | None = None
        self._news = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.protocol.parser_exc is not None or self.protocol.handshake_exc is not None:
            # It was not what may come. websockets would wait for the server to close, and read on
            # until then, while messages in flight wait for receipts that nobody hears.
            self.transport.abort()

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame) or event.opcode not in _DATA:
            super().process_event(event)
            return
        if event.fin and self._partial is None:
            self._arrived.append(bytes(event.data))
        else:
            if self._partial is None:
                self._partial = bytearray()
            self._partial += event.data
            if not event.fin:
                return
            self._arrived.append(bytes(self._partial))
            self._partial = None
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._news.set()

    async def receive_all(self) -> list[bytes]:
        """Wait for messages, and return all that have arrived.

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
        """Pause reading for some seconds, so that more messages arrive together."""
        self.transport.pause_reading()
        self.loop.call_later(seconds, self.transport.resume_reading)

    async def send_all(self, frames: Iterable[bytes]) -> None:
        """Send text messages in one write.

        Raises:
            ConnectionClosed: as ``send`` does.
        """
        async with self.send_context():
            for frame in frames:
                self.protocol.send_text(frame)
            self.transport.write(b"".join(self.protocol.data_to_send()))


class _Connect(connect):
    """Follow no redirect, so that the token reaches only the configured host."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc
