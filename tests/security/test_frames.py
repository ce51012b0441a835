"""A server that means harm: what it sends ends the connection, and costs little memory and time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

import celery_stargate
from celery_stargate import ProduceError, ProduceTimeout
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.admin import AdminApi
from celery_stargate.pulsar.deduplication import _ask
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.link import HandshakeRefused, LinkBroken
from celery_stargate.pulsar.producer import Producer
from celery_stargate.pulsar.socket import _Connection
from celery_stargate.testing import LocalPulsar
from tests.integration.rig import elapsed
from tests.security.conftest import answering, listening

PATH = "/ws/v2/producer/persistent/public/default/orders"
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: What one connection may cost, in bytes: a reply of 64 KiB, its copies, and what asyncio reads.
MEMORY = 2 * 1024 * 1024
TEXT, CONTINUATION, BINARY, PING = 0x1, 0x0, 0x2, 0x9


def frame(opcode: int, data: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """Return a frame of a server, which is not masked."""
    head = (0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode
    if len(data) < 126:
        return struct.pack("!BB", head, len(data)) + data
    if len(data) < 65_536:
        return struct.pack("!BBH", head, 126, len(data)) + data
    return struct.pack("!BBQ", head, 127, len(data)) + data


def upgraded(request: bytes, extra: bytes = b"") -> bytes:
    """Return the answer to a handshake."""
    [key] = [
        line.partition(b":")[2].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    ]
    accept = base64.b64encode(hashlib.sha1(key + _MAGIC).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n" + extra + b"\r\n"
    )


def deflated(size: int) -> bytes:
    """Return so many zeros as permessage-deflate would send them: a thousandth of that."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def until_closed(connection: socket.socket, data: bytes, most: int) -> int:
    """Send the same bytes again and again until the client is gone; return how much it took."""
    taken = 0
    with suppress(OSError):
        while taken < most:
            connection.sendall(data)
            taken += len(data)
    return taken


def receive(port: int) -> list[bytes]:
    """Return what a producer reads before its connection breaks, within 10 s."""

    async def run() -> list[bytes]:
        producer = Producer(
            Endpoint(f"ws://127.0.0.1:{port}", open_timeout=5.0),
            Topic.parse("orders"),
            ProducerOptions(),
        )
        found: list[bytes] = []
        await producer.open()
        try:
            async with asyncio.timeout(10):
                async for replies in producer.replies():
                    found += replies
        finally:
            producer.abort()
            await producer.close()
        return found

    return asyncio.run(run())


def peak(work: Callable[[], object]) -> int:
    """Return how much memory some work took at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BOMB = deflated(100 * 1024 * 1024)


@pytest.mark.parametrize(
    "sent",
    [
        frame(TEXT, BOMB[:60_000], rsv1=True),
        frame(TEXT, b"x" * 65_537),
        # A length that nothing follows.
        struct.pack("!BBQ", 0x81, 127, 2**62),
        struct.pack("!BBQ", 0x81, 127, 2**63),
        frame(TEXT, b"\xff\xfe", fin=False) + frame(CONTINUATION, b"x" * 65_537),
        frame(TEXT, b"x" * 60_000, fin=False) + frame(CONTINUATION, b"x" * 60_000),
        frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
        frame(CONTINUATION, b"a"),
        frame(PING, b"x" * 126),
        frame(0x3, b"reserved"),
        b"\x81\x85mask" + b"hello",
        os.urandom(7) + b"\xff" * 1000,
    ],
    ids=[
        *("compressed", "large", "2**62", "2**63", "large-fragment", "large-fragments"),
        *("interleaved", "no-beginning", "large-ping", "reserved", "masked", "noise"),
    ],
)
def test_a_frame_that_must_not_come(sent: bytes) -> None:
    """The connection is closed, and nothing of it is taken for a reply."""

    def talk(connection: socket.socket, request: bytes) -> None:
        connection.sendall(upgraded(request) + sent)
        while connection.recv(65_536):
            pass

    def work() -> None:
        with listening(talk) as server, pytest.raises(LinkBroken):
            receive(server.port)

    assert peak(work) < MEMORY


@pytest.mark.parametrize("content", [b"", b"x"], ids=["empty", "one-byte"])
def test_fragments_without_end(content: bytes) -> None:
    """Many cost no more than what they hold, and of more than 64 KiB the connection breaks."""
    took: list[int] = []

    def talk(connection: socket.socket, request: bytes) -> None:
        connection.sendall(upgraded(request) + frame(TEXT, b"", fin=False))
        fragments = frame(CONTINUATION, content, fin=False) * 1000
        took.append(until_closed(connection, fragments, 50_000 if not content else 250_000))
        connection.shutdown(socket.SHUT_WR)

    with listening(talk) as server, pytest.raises(LinkBroken):
        receive(server.port)
    assert took


def test_fragments_are_kept_as_bytes() -> None:
    """A list of a million empty ones would have 8 MB."""
    connection: Any = SimpleNamespace(_partial=None, _arrived=[], _news=asyncio.Event())
    fragment = Frame(Opcode.CONT, b"", fin=False)

    def work() -> None:
        for _ in range(100_000):
            _Connection.process_event(connection, fragment)

    assert peak(work) < 100_000
    _Connection.process_event(connection, Frame(Opcode.CONT, b"end"))
    assert connection._arrived == [b"end"]  # noqa: SLF001


def test_compression_is_neither_asked_for_nor_taken() -> None:
    """A server that switches it on all the same is left before it sends a bomb."""
    sent: list[bytes] = []

    def talk(connection: socket.socket, request: bytes) -> None:
        sent.append(request)
        extra = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        connection.sendall(upgraded(request, extra) + frame(TEXT, BOMB[:60_000], rsv1=True))
        while connection.recv(65_536):
            pass

    def work() -> None:
        with listening(talk) as server, pytest.raises((LinkBroken, HandshakeRefused)):
            receive(server.port)

    assert peak(work) < MEMORY
    assert b"extensions" not in sent[0].lower()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 x\r\n\r\n",
        b"HTTP/1.1 500 x\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        b"HTTP/1.1 101 x\r\n",
        b"HTTP/1.1 " + b"5" * 5000,
    ],
    ids=["body", "length", "chunk", "headers", "status"],
)
def test_a_handshakes_answer_without_end(answer: bytes) -> None:
    """It is read up to a bound."""
    took: list[int] = []

    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(answer)
        took.append(until_closed(connection, b"x-header: y\r\n" * 5000, 64 * 1024 * 1024))

    with listening(talk) as server, pytest.raises((LinkBroken, HandshakeRefused)):
        receive(server.port)
    assert took[0] < 16 * 1024 * 1024


ADMIN_ANSWERS = {
    "deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no-utf-8": b'{"a":"\xff\xfe"}',
    "surrogate": b'{"deduplicationStatus":"\\ud800"}',
    "number": b'{"a":' + b"9" * 100_000 + b"}",
    "a-list": b"[1]",
    "nothing": b"",
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("name", ADMIN_ANSWERS)
def test_a_hostile_answer_of_the_admin_api(name: str) -> None:
    """It is no answer, or an empty one; it ends neither ``doctor`` nor an owner's question."""
    body = ADMIN_ANSWERS[name]
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with listening(answering(head + body)) as server:
        endpoint = Endpoint(f"ws://127.0.0.1:{server.port}")
        assert AdminApi(endpoint).get("x").fields.get("deduplicationStatus") is None
        assert asyncio.run(_ask(endpoint, "x"))[1].get("deduplicationStatus") is None


def test_an_answer_of_the_admin_api_that_comes_byte_by_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each byte is in time; an owner's question is bounded as a whole."""
    monkeypatch.setattr("celery_stargate.pulsar.deduplication._TIMEOUT", 0.5)

    def talk(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        connection.settimeout(0.1)
        with suppress(OSError):
            for _count in range(12):
                connection.sendall(b" ")
                with suppress(TimeoutError):
                    if not connection.recv(1):
                        return

    with listening(talk) as server, elapsed() as seconds:
        assert asyncio.run(_ask(Endpoint(f"ws://127.0.0.1:{server.port}"), "x")) == (0, {})
        assert seconds() < 2.0


HOSTILE_RECEIPTS = [
    "{" * 30_000,
    '{"result":"ok","context":' + "[" * 30_000,
    '{"result":"ok","context":"\\ud800"}',
    '{"result":"ok","messageId":' + "9" * 60_000 + "}",
    '{"result":"ok"}',
    '{"result":"ok","context":"somebody else\'s","messageId":"CAwQADAA"}',
    '{"result":"send-error:8","errorMsg":"\\r\\nERROR forged line","context":"x"}',
    "\x00\x1b[31m",
]


@pytest.mark.parametrize("text", HOSTILE_RECEIPTS, ids=range(len(HOSTILE_RECEIPTS)))
def test_hostile_receipts(
    local: LocalPulsar, topic: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The message gets its own receipt all the same; no line of the log is forged."""
    caplog.set_level("DEBUG", "celery_stargate")
    local.faults.garbage_receipts(1, text)
    url = f"{local.url}/ws/v2/producer/{topic.replace('://', '/')}"
    try:
        assert celery_stargate.produce(url, "x", timeout=1).status == "stored"
    except (ProduceTimeout, ProduceError):
        # Nothing was said of this message: it is unknown, and not taken for stored.
        assert "somebody" in text or "forged" in text
    assert all("\n" not in each.getMessage() for each in caplog.records)
    assert all("\x1b" not in each.getMessage() for each in caplog.records)
