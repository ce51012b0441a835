"""What `LocalPulsar` adds to a broker: faults, looking inside, life and death."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from celery_stargate.testing import Frame, LocalPulsar
from celery_stargate.testing.local_pulsar.topics import TopicError
from tests.contract.wire import Broker, frame, new_topic, producer_path
from tests.contract.wire import Socket as WireSocket
from tests.servers.credentials import make_tls, tls_missing_reason
from tests.servers.fixtures import require


@pytest.fixture
def pulsar() -> Iterator[LocalPulsar]:
    """A fresh one."""
    with LocalPulsar() as local:
        yield local


@pytest.fixture
def topic() -> str:
    """A topic."""
    return new_topic()


def open_producer(pulsar: LocalPulsar, topic: str, **query: object) -> WireSocket:
    """A producer's socket."""
    return Broker(pulsar.url, pulsar.http_url).producer(topic, **query)


def contexts(*names: str) -> list[str]:
    """Frames with these contexts."""
    return [frame(context=name) for name in names]


def test_receipts_are_held_and_released(pulsar: LocalPulsar, topic: str) -> None:
    """The messages are stored meanwhile."""
    with open_producer(pulsar, topic) as producer:
        pulsar.faults.hold_receipts()
        for text in contexts("a", "b"):
            producer.send(text)
        pulsar.wait_for_messages(topic, 2)
        assert producer.silent()
        pulsar.faults.release_receipts()
        assert [one["context"] for one in producer.receive_many(2)] == ["a", "b"]


def test_receipts_are_dropped(pulsar: LocalPulsar, topic: str) -> None:
    """A number of them, or all."""
    with open_producer(pulsar, topic) as producer:
        pulsar.faults.drop_receipts(2)
        for text in contexts("a", "b", "c"):
            producer.send(text)
        assert producer.receive()["context"] == "c"
        assert [one.context for one in pulsar.messages(topic)] == ["a", "b", "c"]
        pulsar.faults.drop_receipts()
        producer.send(frame())
        assert producer.silent()
        pulsar.faults.clear()
        assert producer.ask(frame(context="d"))[0]["context"] == "d"


def test_a_receipt_comes_twice(pulsar: LocalPulsar, topic: str) -> None:
    """The same."""
    with open_producer(pulsar, topic) as producer:
        pulsar.faults.duplicate_receipts()
        producer.send(frame(context="a"))
        first, second = producer.receive_many(2)
        assert first == second
        assert producer.ask(frame(context="b"))[0]["context"] == "b"
    assert len(pulsar.messages(topic)) == 2


def test_receipts_come_out_of_order(pulsar: LocalPulsar, topic: str) -> None:
    """Window by window; what is left comes when it is switched off."""
    with open_producer(pulsar, topic) as producer:
        pulsar.faults.reorder_receipts(3)
        for text in contexts("a", "b", "c", "d"):
            producer.send(text)
        assert [one["context"] for one in producer.receive_many(3)] == ["c", "b", "a"]
        pulsar.faults.reorder_receipts(0)
        assert producer.receive()["context"] == "d"


def test_garbage_instead_of_a_receipt(pulsar: LocalPulsar, topic: str) -> None:
    """And a frame out of the blue."""
    with open_producer(pulsar, topic) as producer:
        pulsar.faults.garbage_receipts(text='{"garbage": 1}')
        assert producer.ask(frame()) == [{"garbage": 1}]
        assert pulsar.inject('{"result": "ok"}') == 1
        assert producer.receive() == {"result": "ok"}


@pytest.mark.parametrize("code", [None, 1009, 1011])
def test_the_socket_closes_after_receipts(
    pulsar: LocalPulsar, topic: str, code: int | None
) -> None:
    """With a close frame or without, once."""
    pulsar.faults.close_after_receipts(2, code=code)
    with open_producer(pulsar, topic) as producer:
        assert producer.ask(frame(context="a"))[0]["context"] == "a"
        producer.send(frame(context="b"))
        end = producer.closed_with()
        assert (end[0] if end is not None else None) == code
    assert pulsar.counters.receipts == 2
    with open_producer(pulsar, topic) as producer:
        producer.ask(*contexts("c", "d", "e"))


def test_the_socket_closes_after_frames(pulsar: LocalPulsar, topic: str) -> None:
    """The last is stored and has no receipt; those behind it are lost."""
    pulsar.faults.close_after_frames(2)
    with open_producer(pulsar, topic) as producer:
        for text in contexts("a", "b", "c"):
            try:
                producer.send(text)
            except ConnectionClosed:
                break
        assert producer.closed_with() is None
    assert [one.context for one in pulsar.messages(topic)] == ["a", "b"]
    assert pulsar.counters.receipts == 1


def test_sends_fail_by_choice(pulsar: LocalPulsar, topic: str) -> None:
    """They take a number, as in the broker, and are not stored."""

    def bad(sent: Frame) -> bool:
        return sent.context == "bad" and sent.payload == b"x" and sent.topic == topic

    pulsar.faults.fail_sends("some.Exception: no", when=bad, count=1)
    with open_producer(pulsar, topic, producerName="me", initialSequenceId=-1) as producer:
        answers = producer.ask(*contexts("a", "bad", "b", "bad"))
    assert [one["result"] for one in answers] == ["ok", "send-error:8", "ok", "ok"]
    assert answers[1]["errorMsg"] == "some.Exception: no"
    assert [one.sequence_id for one in pulsar.messages(topic)] == [0, 2, 3]
    assert pulsar.counters.errors == 1


def test_frames_are_ignored(pulsar: LocalPulsar, topic: str) -> None:
    """Neither stored nor answered."""
    pulsar.faults.ignore_frames(1)
    with open_producer(pulsar, topic) as producer:
        producer.send(frame(context="a"))
        assert producer.ask(frame(context="b"))[0]["context"] == "b"
    assert [one.context for one in pulsar.messages(topic)] == ["b"]


def test_handshakes_are_refused(pulsar: LocalPulsar, topic: str) -> None:
    """As often as told, in the order of telling."""
    pulsar.faults.refuse_handshakes(503, count=2, reason="Too busy")
    pulsar.faults.refuse_handshakes(429)
    broker = Broker(pulsar.url, pulsar.http_url)
    statuses = [broker.refusal(producer_path(topic)) for _ in range(3)]
    assert [one.status for one in statuses] == [503, 503, 429]
    assert statuses[0].sentence == "Too busy"
    with open_producer(pulsar, topic) as producer:
        producer.ask(frame())
    assert (pulsar.counters.handshakes, pulsar.counters.refused) == (4, 3)


def test_a_late_handshake_has_the_name_already(pulsar: LocalPulsar, topic: str) -> None:
    """So that who gives up and comes again finds it taken, until the socket is gone."""
    pulsar.faults.delay_handshakes(30.0, count=1)
    path = producer_path(topic, producerName="me")
    with socket.create_connection((pulsar.host, pulsar.port)) as impatient:
        impatient.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "\r\n".encode()
        )
        pulsar.wait_until(lambda: pulsar.counters.handshakes == 1)
        assert Broker(pulsar.url, pulsar.http_url).refusal(path).status == 409
        assert [one.answered for one in pulsar.connections] == [False]
    pulsar.wait_until(lambda: not pulsar.connections)
    with open_producer(pulsar, topic, producerName="me") as producer:
        producer.ask(frame())


def test_a_frozen_server(pulsar: LocalPulsar, topic: str) -> None:
    """Takes nothing in, and goes on where it was."""
    with open_producer(pulsar, topic) as producer:
        pulsar.faults.freeze()
        producer.send(frame(context="a"))
        assert producer.silent()
        assert pulsar.messages(topic) == []
        pulsar.faults.thaw()
        assert producer.receive()["context"] == "a"


def test_connections_are_seen_and_dropped(pulsar: LocalPulsar, topic: str) -> None:
    """From outside."""
    with open_producer(pulsar, topic, producerName="me") as producer:
        (seen,) = pulsar.connections
        assert (seen.kind, seen.topic, seen.name) == ("producer", topic, "me")
        assert pulsar.drop_connections() == 1
        assert producer.closed_with() is None
    assert pulsar.connections == []


def test_a_restart_keeps_port_and_topics(pulsar: LocalPulsar, topic: str) -> None:
    """Sockets go without a close frame; names are free again; numbers are kept."""
    url = pulsar.url
    query: dict[str, object] = {"producerName": "me", "initialSequenceId": -1}
    with open_producer(pulsar, topic, **query) as producer:
        producer.ask(frame(context="a"))
        pulsar.stop()
        assert producer.closed_with() is None
        with pytest.raises(OSError, match=r"."):
            open_producer(pulsar, topic)
    assert len(pulsar.messages(topic)) == 1
    pulsar.start()
    assert pulsar.url == url
    with open_producer(pulsar, topic, **query) as producer:
        producer.ask(*contexts("a", "b"))
    assert [one.context for one in pulsar.messages(topic)] == ["a", "b"]
    assert pulsar.counters.deduplicated == 1


def test_waiting_is_bounded(pulsar: LocalPulsar, topic: str) -> None:
    """And shows the errors of its condition."""
    with pytest.raises(TimeoutError):
        pulsar.wait_for_messages(topic, 1, timeout=0.05)

    def broken() -> bool:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        pulsar.wait_until(broken)


def test_waiting_from_another_thread(pulsar: LocalPulsar, topic: str) -> None:
    """While this one sends."""
    found: list[int] = []
    waiter = threading.Thread(
        target=lambda: found.append(len(pulsar.wait_for_messages(topic, 100)))
    )
    waiter.start()
    with open_producer(pulsar, topic) as producer:
        producer.ask(*(frame() for _ in range(100)))
    waiter.join(5)
    assert found == [100]


@pytest.mark.parametrize("code", [None, 1011])
def test_an_open_batch_is_stored_when_its_socket_goes(
    pulsar: LocalPulsar, topic: str, code: int | None
) -> None:
    """A fault that would close the socket then does no harm: the name is free again."""
    query = {"producerName": "me", "batchingEnabled": "true", "batchingMaxPublishDelay": "600000"}
    pulsar.faults.close_after_frames(1, code=code)
    with open_producer(pulsar, topic, **query) as producer:
        producer.send(frame(context="a"))
        pulsar.wait_until(lambda: pulsar.counters.frames == 1)
        assert pulsar.messages(topic) == []
    assert [one.context for one in pulsar.wait_for_messages(topic, 1)] == ["a"]
    pulsar.wait_until(lambda: not pulsar.connections)
    with open_producer(pulsar, topic, **query):
        assert [one.name for one in pulsar.connections] == ["me"]


def test_a_stop_of_what_does_not_run() -> None:
    """Does nothing, before the start and after the end."""
    pulsar = LocalPulsar()
    pulsar.stop()
    with pulsar:
        pulsar.stop()
        assert not pulsar.running
    pulsar.restart()
    assert pulsar.running
    pulsar.stop()


def test_topics_are_ended_and_deleted(pulsar: LocalPulsar, topic: str) -> None:
    """All partitions of one; who is connected goes on in an empty topic."""
    pulsar.create_topic(topic, 2)
    with open_producer(pulsar, topic, messageRoutingMode="RoundRobinPartition") as producer:
        producer.ask(frame(), frame())
        reader = Broker(pulsar.url, pulsar.http_url).reader(topic, messageId="earliest")
        with reader:
            reader.receive_many(2)
            pulsar.delete_topic(topic)
            producer.ask(frame(context="new"))
            assert reader.receive()["messageId"]
            assert [one.context for one in pulsar.messages(topic)] == ["new"]
        pulsar.terminate(topic)
        answers = producer.ask(frame(), frame())
        assert [one["result"] for one in answers] == ["send-error:8"] * 2
    with pytest.raises(TopicError, match="not found"):
        pulsar.terminate("nothing")


def test_fixed_tokens_and_grants() -> None:
    """Without a secret."""
    with LocalPulsar(tokens={"one": "admin", "two": "friend"}) as pulsar:
        broker = Broker(pulsar.url, pulsar.http_url)
        path = producer_path(new_topic())
        broker.open_path(path, "one").close()
        assert broker.refusal(path, "three").status == 401
        assert broker.refusal(path, "two").status == 403
        pulsar.grant("public/default", "friend")
        broker.open_path(path, "two").close()


def test_a_port_that_is_taken(pulsar: LocalPulsar) -> None:
    """Is an `OSError`, and the thread is gone."""
    other = LocalPulsar(port=pulsar.port)
    with pytest.raises(OSError, match=r"."):
        other.start()
    assert not other.running
    with pytest.raises(RuntimeError):
        pulsar.start()


def test_fragments_and_pings(pulsar: LocalPulsar, topic: str) -> None:
    """A message in several frames is one message; pings are answered."""
    with connect(pulsar.url + producer_path(topic), compression=None) as client:
        text = frame(context="parts")
        client.send([text[:10], text[10:20], text[20:]])
        assert "parts" in client.recv(5, decode=True)
        assert client.ping().wait(5)
    assert pulsar.counters.pings == 1


def test_from_the_command_line() -> None:
    """`python -m celery_stargate.testing` prints its URL and ends on SIGTERM."""
    with subprocess.Popen(
        [sys.executable, "-m", "celery_stargate.testing", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with WireSocket(url + producer_path(new_topic()), {}) as producer:
            assert producer.ask(frame())[0]["result"] == "ok"
        process.terminate()
        assert process.wait(10) == 0


def test_garbage_handshakes_do_no_harm(pulsar: LocalPulsar, topic: str) -> None:
    """Bytes that are no HTTP, and HTTP that is no upgrade."""
    for data in (
        b"\x00\xff\r\n\r\n",
        b"GET /ws/v2/producer/x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n",
    ):
        with socket.create_connection((pulsar.host, pulsar.port), timeout=5) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    with open_producer(pulsar, topic) as producer:
        producer.ask(frame())
    with pytest.raises(InvalidStatus):
        Broker(pulsar.url, pulsar.http_url).open_path("/ws/v2/nothing")


def test_an_oversized_frame_amid_others(pulsar: LocalPulsar, topic: str) -> None:
    """The close frame arrives, whatever was sent behind it."""

    def send_and_read(client: ClientConnection) -> None:
        client.send(frame(b"x" * 1_000_000))
        for _ in range(200):
            client.send(frame(b"y" * 10_000))
        while True:
            client.recv(5)

    with connect(pulsar.url + producer_path(topic), compression=None) as client:
        client.send(frame(context="before"))
        with pytest.raises(ConnectionClosed) as caught:
            send_and_read(client)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
    assert [one.context for one in pulsar.messages(topic)] == ["before"]


@pytest.mark.parametrize(
    "call", [b"POST\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"x" * 70_000]
)
def test_garbage_calls_of_the_admin_api(pulsar: LocalPulsar, call: bytes) -> None:
    """Are dropped without a word, in the log neither."""
    with socket.create_connection((pulsar.host, pulsar.port), timeout=5) as client:
        client.sendall(call)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


def test_tls_closes_politely(tmp_path: Path) -> None:
    """A TLS connection cannot be half closed; the close frame arrives all the same."""
    require(tls_missing_reason())
    tls = make_tls(tmp_path)
    with LocalPulsar(ssl_context=tls.server_context()) as pulsar:
        url = pulsar.url + producer_path(new_topic())
        with WireSocket(url, {}, tls.client_context(certificate=False)) as producer:
            producer.ask(frame())
            pulsar.drop_connections(1011)
            assert producer.closed_with() == (1011, "")


def test_a_stop_ends_connections_that_are_being_made() -> None:
    """A client that was accepted in the last moment is not left waiting for an answer."""
    for _ in range(20):
        pulsar = LocalPulsar()
        pulsar.start()
        with contextlib.ExitStack() as clients:
            made: list[socket.socket] = []
            threads = [
                threading.Thread(target=_connect, args=(pulsar.port, made)) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            pulsar.stop()
            for thread in threads:
                thread.join()
            for client in made:
                clients.enter_context(client)
            for client in made:
                with contextlib.suppress(ConnectionError):
                    assert client.recv(1) == b""


def _connect(port: int, made: list[socket.socket]) -> None:
    with contextlib.suppress(ConnectionError):
        made.append(socket.create_connection(("127.0.0.1", port), timeout=5))
