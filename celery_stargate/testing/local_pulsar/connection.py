"""One TCP connection: a WebSocket's handshake and frames, or a call of the admin API.

It uses `websockets`' protocol without its asyncio server, which would switch tasks for each frame.
So the frames of one read are answered by one write, and tests can drop, freeze or delay a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from celery_stargate.support.log import websocket_logger
from celery_stargate.testing.local_pulsar.counters import Counters
from celery_stargate.testing.local_pulsar.faults import Peer
from celery_stargate.testing.local_pulsar.refusal import Refusal, page, phrase

_HEAD_LIMIT = 65_536
_LINGER = 0.5


class Endpoint(Protocol):
    """The producer, consumer or reader of a WebSocket."""

    kind: str
    topic: str
    name: str

    def received(self, text: bytes) -> None: ...

    def closed(self) -> None: ...


class Host(Protocol):
    """What a connection needs from its server."""

    counters: Counters
    max_frame: int

    def open(self, request: Request, peer: Peer) -> tuple[Endpoint, float]:
        """Return the endpoint for a request and the answer's delay, or raise `Refusal`."""

    def call(self, method: str, target: str, authorization: str | None, body: bytes) -> bytes:
        """Return the whole HTTP answer to a call of the admin API."""

    def joined(self, connection: Connection) -> None: ...

    def left(self, connection: Connection) -> None: ...

    def settled(self) -> None:
        """Note that frames were processed: conditions that are waited for are checked."""

    @property
    def frozen(self) -> bool: ...


class Connection(asyncio.Protocol):
    """One connection. Its methods are asyncio's callbacks, what faults do, and two protocols."""

    def __init__(self, host: Host) -> None:
        self.endpoint: Endpoint | None = None
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._feed: Callable[[bytes], None] = self._first_bytes
        self._head = b""
        self._fragments: list[bytes] = []
        # The token stays out of the DEBUG lines, as with the client.
        self._protocol = ServerProtocol(max_size=host.max_frame, logger=websocket_logger)
        self._timer: asyncio.TimerHandle | None = None
        # Frames written while frames are read go out together.
        self._reading = False
        self._is_open = False

    # -- asyncio --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._host.joined(self)
        if self._host.frozen:
            self.freeze(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        endpoint, self.endpoint = self.endpoint, None
        if endpoint is not None:
            endpoint.closed()
        self._host.left(self)
        self._host.settled()

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def eof_received(self) -> bool:
        if self._feed == self._websocket_bytes:
            self._protocol.receive_eof()
            self._flush()
        return False

    # -- for faults and the server --------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it is a WebSocket whose handshake was answered, and which is not closing."""
        return self._is_open

    def write(self, text: bytes) -> None:
        """Send a text frame, if the socket still lives."""
        if not self._is_open or self._protocol.state is not State.OPEN:
            return
        if self.endpoint is not None and self.endpoint.kind == "producer":
            self._host.counters.receipts += 1
        self._protocol.send_text(text)
        if not self._reading:
            self._flush()

    def close(self, code: int | None) -> None:
        """Close it with a code, or drop it (None)."""
        if code is not None:
            self.close_saying(code, "")
        elif self._transport is not None:
            self._is_open = False
            # Receipts before this one were sent; what the kernel has of them may be lost.
            self._flush()
            self._transport.abort()

    def close_saying(self, code: int, reason: str) -> None:
        """Close it with a code and a reason."""
        if self._is_open and self._protocol.state is State.OPEN:
            self._is_open = False
            self._protocol.fail(code, reason)
            self._flush()

    def freeze(self, frozen: bool) -> None:
        """Read nothing, or read again."""
        if self._transport is None or self._transport.is_closing():
            return
        if frozen:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # -- HTTP -----------------------------------------------------------------------------------

    def _first_bytes(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None  # nothing is read once it is gone
        self._head += data
        if len(self._head) < 4 and b"GET ".startswith(self._head):
            return
        head = self._head
        if head.startswith(b"GET /ws/"):
            self._head = b""
            self._feed = self._websocket_bytes
            self._websocket_bytes(head)
            return
        end = head.find(b"\r\n\r\n")
        if end < 0:
            if len(head) > _HEAD_LIMIT:
                transport.abort()
            return
        lines = head[:end].decode("latin-1").split("\r\n")
        headers = Headers()
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip()] = value.strip()
        body = head[end + 4 :]
        length = headers.get("Content-Length", "0")
        words = lines[0].split(" ")
        if len(words) != 3 or not length.isdecimal():
            transport.abort()
        elif len(body) >= int(length):
            authorization = headers.get("Authorization")
            transport.write(self._host.call(words[0], words[1], authorization, body))
            transport.close()

    # -- WebSocket ------------------------------------------------------------------------------

    def _websocket_bytes(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._reading = True
        try:
            for event in self._protocol.events_received():
                if isinstance(event, Request):
                    self._handshake(event)
                else:
                    assert isinstance(event, Frame)
                    self._frame(event)
        finally:
            self._reading = False
            self._flush()
        self._host.settled()

    def _handshake(self, request: Request) -> None:
        self._host.counters.handshakes += 1
        try:
            self.endpoint, late = self._host.open(request, self)
        except Refusal as refusal:
            self._host.counters.refused += 1
            path = request.path.partition("?")[0]
            body = page(refusal.status, refusal.sentence, path)
            headers = Headers(
                {
                    "Cache-Control": "must-revalidate,no-cache,no-store",
                    "Content-Type": "text/html;charset=iso-8859-1",
                    "Content-Length": str(len(body)),
                    "Connection": "close",
                }
            )
            self._protocol.send_response(
                Response(refusal.status, phrase(refusal.status), headers, body)
            )
            return
        if late:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(late, self._accept, request)
        else:
            self._accept(request)

    def _accept(self, request: Request) -> None:
        self._protocol.send_response(self._protocol.accept(request))
        self._is_open = self._protocol.state is State.OPEN
        opened = getattr(self.endpoint, "opened", None)
        if self._is_open and opened is not None:
            opened()
        if not self._reading:
            self._flush()
            self._host.settled()

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING:
            self._host.counters.pings += 1
        if not self._is_open or self.endpoint is None:
            return
        if frame.opcode is Opcode.TEXT and frame.fin:
            self.endpoint.received(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:
            self._fragments = [bytes(frame.data)]
        elif frame.opcode is Opcode.CONT and self._fragments:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                text, self._fragments = b"".join(self._fragments), []
                self.endpoint.received(text)
        # As in the broker, a binary frame is ignored.

    def _flush(self) -> None:
        transport = self._transport
        parts = self._protocol.data_to_send()
        if transport is None or not parts:
            return
        if self._protocol.state is not State.OPEN:
            self._is_open = False
        transport.write(b"".join(parts))
        if parts[-1]:
            return
        # An empty part means the end of the stream. If the socket were closed with unread data, the
        # kernel would reset the connection and the other side could miss the close frame. So keep
        # reading for a moment, until the other side closes too.
        if self._timer is not None:
            self._timer.cancel()
        if not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(_LINGER, transport.close)
