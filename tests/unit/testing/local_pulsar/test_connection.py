"""``connection.py`` byte by byte: what a socket may deliver together, or in pieces."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from celery_stargate.testing.local_pulsar.connection import Connection
from celery_stargate.testing.local_pulsar.counters import Counters
from celery_stargate.testing.local_pulsar.faults import Faults
from celery_stargate.testing.local_pulsar.service import Service
from celery_stargate.testing.local_pulsar.tokens import Tokens
from celery_stargate.testing.local_pulsar.topics import Cluster
from tests.contract.wire import consumer_path, frame, new_topic, producer_path


class Wire(asyncio.Transport):
    """A socket in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closing = self.aborted = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Note it."""
        self.sent += bytes(data)

    def can_write_eof(self) -> bool:
        """As with TLS."""
        return False

    def is_closing(self) -> bool:
        """As the test says."""
        return self.closing

    def close(self) -> None:
        """Note it."""
        self.closing = True

    def abort(self) -> None:
        """Note it."""
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        """Note it."""
        self.reading = False

    def resume_reading(self) -> None:
        """Note it."""
        self.reading = True


class World:
    """A stand-in without its thread, and one connection to it."""

    def __init__(self) -> None:
        self.cluster = Cluster(["public/default"], deduplication=True)
        self.faults = Faults(lambda work: work())
        access = Tokens(secret=None, fixed=None, superusers=frozenset())
        self.counters = Counters()
        self.service = Service(self.cluster, access, self.faults, self.counters, 1 << 20)
        self.wire = Wire()
        self.connection = Connection(self.service)

    def connect(self) -> None:
        """As asyncio does."""
        self.connection.connection_made(self.wire)

    def client(self, path: str) -> ClientProtocol:
        """Make the handshake; return the client, which makes bytes."""
        self.connect()
        client = ClientProtocol(parse_uri(f"ws://localhost{path}"))
        client.send_request(client.connect())
        self.connection.data_received(b"".join(client.data_to_send()))
        assert self.receive(client)[0] == 101
        return client

    def receive(self, client: ClientProtocol) -> list[int | dict[str, str]]:
        """Return what was sent since: a status, receipts, and a close code."""
        client.receive_data(self.wire.sent)
        self.wire.sent = b""
        found: list[int | dict[str, str]] = []
        for event in client.events_received():
            if isinstance(event, Response):
                found.append(event.status_code)
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                found.append(json.loads(bytes(event.data)))
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                found.append(Close.parse(bytes(event.data)).code)
        return found


@pytest.fixture
def world() -> World:
    """A fresh one."""
    return World()


def bytes_of(client: ClientProtocol, *texts: str) -> bytes:
    """Frames as they go over the wire, together."""
    for text in texts:
        client.send_text(text.encode())
    return b"".join(client.data_to_send())


def test_a_request_in_pieces(world: World) -> None:
    """What it is shows only when enough of it is there."""
    world.connect()
    for data in (b"G", b"ET", b" /admin/v2/brokers/health HTTP/1.1\r\n", b"Host: x\r\n\r\n"):
        assert world.wire.sent == b""
        world.connection.data_received(data)
    assert world.wire.sent.startswith(b"HTTP/1.1 200 ")
    assert world.wire.closing


def test_a_call_that_is_no_call_of_the_admin_api(world: World) -> None:
    """Is not found."""
    world.connect()
    world.connection.data_received(b"GET /elsewhere HTTP/1.1\r\n\r\n")
    assert world.wire.sent.startswith(b"HTTP/1.1 404 ")


def test_frames_behind_the_last_one_are_lost(world: World) -> None:
    """Those that came with it, too."""
    topic = new_topic()
    client = world.client(producer_path(topic))
    world.faults.close_after_frames(2)
    frames = bytes_of(client, *(frame(context=name) for name in "abc"))
    world.connection.data_received(frames)
    assert [each.context for each in world.cluster.existing(topic)[0].messages] == ["a", "b"]
    assert [each["context"] for each in world.receive(client) if isinstance(each, dict)] == ["a"]
    assert world.wire.aborted


def test_a_consumer_is_closed_once(world: World) -> None:
    """By the first of two commands without an id."""
    client = world.client(consumer_path(new_topic()))
    world.connection.data_received(bytes_of(client, "{}", "{}"))
    assert world.receive(client) == [1011]
    # A fault comes too late.
    world.connection.close_saying(1009, "")
    assert world.receive(client) == []


def test_a_receipt_for_a_socket_that_is_gone(world: World) -> None:
    """Is neither sent nor counted."""
    client = world.client(producer_path(new_topic()))
    world.faults.hold_receipts()
    world.connection.data_received(bytes_of(client, frame()))
    world.connection.connection_lost(None)
    world.faults.release_receipts()
    assert (world.counters.stored, world.counters.receipts) == (1, 0)
    assert world.receive(client) == []


def test_a_frozen_server_accepts_and_reads_nothing(world: World) -> None:
    """Until it goes on; a socket that is being closed is left alone."""
    world.faults.freeze()
    world.connect()
    assert not world.wire.reading
    world.faults.thaw()
    world.service.freeze()
    assert world.wire.reading
    world.wire.close()
    world.faults.freeze()
    world.service.freeze()
    assert world.wire.reading
