"""``producer.py``: the WebSocket to a real Pulsar, how it is opened, refused and lost."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from celery_stargate import ConfigurationError, Message
from celery_stargate.model.frame import encode_frame
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.link import HandshakeRefused, LinkBroken
from celery_stargate.pulsar.producer import Producer
from celery_stargate.pulsar.replies import decode_reply
from celery_stargate.testing import LocalPulsar
from tests.integration.rig import WAIT, elapsed, read_back
from tests.servers import credentials
from tests.servers import pulsar as pulsar_module
from tests.servers.credentials import TLSFiles
from tests.servers.fixtures import PulsarAddress, require
from tests.servers.pulsar import PulsarServer

SECRET = b"a secret of at least thirty-two bytes"


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine, within the bound."""
    return asyncio.run(asyncio.wait_for(work, WAIT))


async def publish(
    endpoint: Endpoint,
    topic: str,
    *payloads: str,
    options: ProducerOptions | None = None,
    query: str = "",
) -> list[str]:
    """Open, send, and return the results of the replies, in their order."""
    producer = Producer(endpoint, Topic.parse(topic), options or ProducerOptions(), query)
    try:
        await producer.open()
        for number, payload in enumerate(payloads):
            await producer.send(encode_frame(Message(payload=payload), f"c{number}", 1 << 20))
        results: list[str] = []
        replies = producer.replies()
        while len(results) < len(payloads):
            for frame in await anext(replies):
                reply = decode_reply(frame)
                assert reply.context == f"c{len(results)}"
                results.append(reply.result)
        return results
    finally:
        await producer.close()


def refused(
    endpoint: Endpoint, topic: str, *, query: str = "", options: ProducerOptions | None = None
) -> HandshakeRefused:
    """Return how the handshake is refused."""
    with pytest.raises(HandshakeRefused) as caught:
        run(publish(endpoint, topic, options=options, query=query))
    return caught.value


@pytest.fixture
def endpoint(pulsar: PulsarAddress) -> Endpoint:
    """The real broker."""
    return Endpoint(pulsar.url)


@pytest.mark.smoke
def test_what_is_sent_is_in_the_topic_and_answered_in_order(endpoint: Endpoint, topic: str) -> None:
    """Pipelined: all are sent before the first reply is read."""
    payloads = [f"payload {number}" for number in range(100)]
    assert run(publish(endpoint, topic, *payloads)) == ["ok"] * 100
    assert read_back(endpoint.url, topic, 100) == [each.encode() for each in payloads]


class TestRefused:
    """Refused handshakes: the status, Pulsar's own sentence, and whether to try again."""

    @pytest.mark.parametrize("namespace", ["nobody/default", "public/nowhere"])
    def test_a_namespace_that_is_not_there(self, endpoint: Endpoint, namespace: str) -> None:
        """404."""
        found = refused(endpoint, f"persistent://{namespace}/t")
        assert (found.status, found.permanent) == (404, True)
        assert str(found) == "HTTP 404: Namespace not found"

    def test_a_parameter_that_pulsar_does_not_take(self, endpoint: Endpoint, topic: str) -> None:
        """400, which names it."""
        found = refused(endpoint, topic, query="compressionType=lz4")
        assert (found.status, found.permanent) == (400, True)
        assert "Invalid compressionType lz4" in str(found)

    def test_a_name_that_is_taken(self, endpoint: Endpoint, topic: str) -> None:
        """409, which passes when the other one is gone."""
        options = ProducerOptions(producer_name="taken")

        async def twice() -> HandshakeRefused:
            first = Producer(endpoint, Topic.parse(topic), options)
            await first.open()
            try:
                with pytest.raises(HandshakeRefused) as caught:
                    await publish(endpoint, topic, options=options)
            finally:
                await first.close()
            return caught.value

        found = run(twice())
        assert (found.status, found.permanent) == (409, False)
        assert "'taken' is already connected" in str(found)

    def test_a_topic_that_demands_a_schema(self, pulsar: PulsarAddress, endpoint: Endpoint) -> None:
        """409 as for a name in use, and permanent: this client sends bytes without a schema."""
        admin = pulsar.admin
        namespace = f"public/schema-{uuid.uuid4().hex[:8]}"
        admin.create_namespace(namespace)
        admin.call("POST", f"namespaces/{namespace}/schemaValidationEnforced", True)
        admin.create_topic(f"persistent://{namespace}/t")
        avro = {"type": "record", "name": "A", "fields": [{"name": "a", "type": "int"}]}
        schema = {"type": "AVRO", "schema": json.dumps(avro), "properties": {}}
        admin.call("POST", f"schemas/{namespace}/t/schema", schema)
        found = refused(endpoint, f"{namespace}/t")
        assert (found.status, found.permanent) == (409, True)
        assert "without a schema" in found.sentence

    def test_a_url_that_is_too_long(self, endpoint: Endpoint) -> None:
        """A retry does not make it shorter."""
        found = refused(endpoint, "x" * 9000)
        assert (found.status, found.permanent) == (414, True)

    def test_a_topic_that_was_terminated(
        self, endpoint: Endpoint, topic: str, pulsar: PulsarAddress
    ) -> None:
        """Nothing can ever be stored there again, whatever the status says."""
        pulsar.admin.create_topic(topic)
        pulsar.admin.terminate(topic)
        found = refused(endpoint, topic)
        assert found.permanent
        assert "terminated" in str(found)

    def test_a_redirect_is_not_followed(self, topic: str) -> None:
        """The token would go where nobody meant it to."""
        with _http_server(b"") as other:
            location = f"ws://127.0.0.1:{other.port}/elsewhere"
            answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            with _http_server(answer.encode()) as server:
                found = refused(Endpoint(f"ws://127.0.0.1:{server.port}", token="t0k3n"), topic)
            assert (found.status, found.permanent) == (302, True)
            assert server.requests
            assert other.requests == []

    def test_a_server_that_is_no_websocket_server(self, topic: str) -> None:
        """Whatever it says is told, and it may pass."""
        for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"\x15\x03\x01\x00", b""):
            with (
                _http_server(answer) as server,
                pytest.raises((LinkBroken, HandshakeRefused)) as caught,
            ):
                run(publish(Endpoint(f"ws://127.0.0.1:{server.port}"), topic))
            assert not getattr(caught.value, "permanent", False)


class _Server:
    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[bytes] = []


@contextmanager
def _http_server(answer: bytes) -> Iterator[_Server]:
    """Answer every connection with the same bytes, and close it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(listener.getsockname()[1])

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(WAIT)
                server.requests.append(connection.recv(65_536))
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        # Wakes the thread; the number stays taken until it has ended.
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(WAIT)
        listener.close()
    assert not thread.is_alive()


ALL_OPTIONS: list[dict[str, Any]] = [
    {"producer_name": "a name/with ü"},
    {"producer_name": "numbered", "initial_sequence_id": 5},
    {"hashing_scheme": "Murmur3_32Hash"},
    {"hashing_scheme": "JavaStringHash"},
    {"send_timeout": 0},
    {"send_timeout": 1.5},
    {"batching_enabled": False},
    {"batching_enabled": True},
    {
        "batching_enabled": True,
        "batching_max_messages": 10,
        "batching_max_publish_delay": 0.01,
        "max_pending_messages": 50,
    },
    {"message_routing_mode": "SinglePartition"},
    {"message_routing_mode": "RoundRobinPartition"},
    {"compression_type": "NONE"},
    {"compression_type": "LZ4"},
    {"compression_type": "ZLIB"},
    {"compression_type": "ZSTD"},
    {"compression_type": "SNAPPY"},
]


class TestQuery:
    """Every parameter of the producer's URL, as the settings write it."""

    @pytest.mark.parametrize("options", ALL_OPTIONS, ids="-".join)
    def test_pulsar_takes_it(self, endpoint: Endpoint, topic: str, options: dict[str, Any]) -> None:
        """And the message is stored."""
        assert run(publish(endpoint, topic, "x", options=ProducerOptions(**options))) == ["ok"]
        assert read_back(endpoint.url, topic, 1) == [b"x"]

    def test_pulsar_reads_the_names_and_not_only_ignores_them(
        self, endpoint: Endpoint, topic: str, pulsar: PulsarAddress
    ) -> None:
        """What can be seen of them from outside: the producer's name and its numbers."""
        options = ProducerOptions(producer_name="seen", initial_sequence_id=41)

        async def look() -> Any:
            producer = Producer(endpoint, Topic.parse(topic), options)
            await producer.open()
            try:
                await producer.send(encode_frame(Message(payload="x"), "c", 1 << 20))
                await anext(producer.replies())
                return await asyncio.to_thread(pulsar.admin.stats, topic)
            finally:
                await producer.close()

        (publisher,) = run(look())["publishers"]
        assert publisher["producerName"] == "seen"

    def test_encryption_keys_need_a_key_reader_in_the_broker(
        self, endpoint: Endpoint, topic: str
    ) -> None:
        """The parameter reaches the broker, which says what it lacks."""
        found = refused(endpoint, topic, options=ProducerOptions(encryption_keys=("k1", "k2")))
        assert "encryption key" in str(found)

    @pytest.mark.parametrize("name", ["ü%2F+&?#x{}", "a b".replace(" ", "%20"), "x" * 200])
    def test_any_name_of_a_topic_is_quoted(self, endpoint: Endpoint, name: str) -> None:
        """What a URL would read as something else arrives as it is."""
        topic = f"persistent://public/default/{name}-{uuid.uuid4().hex[:8]}"
        assert run(publish(endpoint, topic, "x")) == ["ok"]
        assert read_back(endpoint.url, topic, 1) == [b"x"]


class TestReplies:
    """How they come."""

    @staticmethod
    async def serve(talk: Callable[[ServerConnection], Awaitable[None]]) -> tuple[Any, Producer]:
        """Return a server that talks to whoever comes, and a producer that is open there."""
        server = await serve(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint(f"ws://127.0.0.1:{port}")
        producer = Producer(endpoint, Topic.parse("orders"), ProducerOptions())
        await producer.open()
        return server, producer

    def test_fragments_are_one_reply(self) -> None:
        """A server, or what stands before it, may cut a message as it likes."""

        async def talk(peer: ServerConnection) -> None:
            await peer.send(["frag", "men", "ted"])
            await peer.send("whole")
            await peer.wait_closed()

        async def main() -> list[bytes]:
            server, producer = await self.serve(talk)
            found: list[bytes] = []
            replies = producer.replies()
            while len(found) < 2:
                found += await anext(replies)
            await producer.close()
            server.close()
            return found

        assert run(main()) == [b"fragmented", b"whole"]

    def test_what_comes_during_a_rest_comes_together(self) -> None:
        """And all of it, in its order."""
        begin = asyncio.Event()

        async def talk(peer: ServerConnection) -> None:
            await peer.send("first")
            await begin.wait()
            for number in range(100):
                await peer.send(str(number))
            await peer.wait_closed()

        async def main() -> list[list[bytes]]:
            server, producer = await self.serve(talk)
            replies = producer.replies()
            assert await anext(replies) == [b"first"]
            producer.rest(0.3)
            begin.set()
            found = [list(await anext(replies))]
            while sum(map(len, found)) < 100:
                found.append(list(await anext(replies)))
            await producer.close()
            server.close()
            return found

        found = run(main())
        assert [reply for some in found for reply in some] == [b"%d" % n for n in range(100)]
        assert len(found) < 10

    def test_a_rest_is_over_when_the_connection_is(self) -> None:
        """Closed or cut meanwhile: nothing waits for it."""

        async def talk(peer: ServerConnection) -> None:
            await peer.wait_closed()

        async def main() -> None:
            server, producer = await self.serve(talk)
            producer.rest(0.01)
            producer.abort()
            with pytest.raises(LinkBroken):
                await anext(producer.replies())
            await asyncio.sleep(0.02)
            await producer.close()
            producer.rest(0.01)
            server.close()

        run(main())


class TestLost:
    """Connections that cannot be made, break, or are silent: always LinkBroken, in bounded time."""

    def test_nobody_listens(self, topic: str, refusing_port: int) -> None:
        """The text says where."""
        url = f"ws://127.0.0.1:{refusing_port}"
        with pytest.raises(LinkBroken, match=f"no connection to {url}"):
            run(publish(Endpoint(url), topic))

    def test_a_name_that_does_not_resolve(self, topic: str) -> None:
        """It may resolve later."""
        with pytest.raises(LinkBroken, match="no connection to ws://nowhere.invalid:8080"):
            run(publish(Endpoint("ws://nowhere.invalid:8080"), topic))

    def test_a_name_that_cannot_be_looked_up(self, topic: str) -> None:
        """Where nobody has checked it."""
        with pytest.raises(LinkBroken, match=r"no connection to ws://a\.\.svc:8080"):
            run(publish(Endpoint("ws://a..svc:8080"), topic))

    def test_a_handshake_that_takes_too_long(self, local: LocalPulsar, topic: str) -> None:
        """Bounded by the timeout for opening."""
        local.faults.delay_handshakes(10)
        with elapsed() as seconds, pytest.raises(LinkBroken, match="no connection"):
            run(publish(Endpoint(local.url, open_timeout=0.3), topic))
        assert seconds() < 5

    @pytest.mark.parametrize("code", [None, 1009, 1011])
    def test_the_other_side_goes(self, local: LocalPulsar, topic: str, code: int | None) -> None:
        """With a close frame or without one."""
        local.faults.close_after_frames(2, code=code)
        with pytest.raises(LinkBroken, match="the connection broke"):
            run(publish(Endpoint(local.url), topic, "a", "b", "c"))

    def test_a_frozen_server_is_found_out_by_pings(self, local: LocalPulsar, topic: str) -> None:
        """Its socket stays open; nothing else would tell."""

        async def wait() -> None:
            producer = Producer(
                Endpoint(local.url, ping_interval=0.1, ping_timeout=0.2),
                Topic.parse(topic),
                ProducerOptions(),
            )
            await producer.open()
            local.faults.freeze()
            try:
                await anext(producer.replies())
            finally:
                producer.abort()

        # Beside the pings it has 5 s for a close frame.
        with elapsed() as seconds, pytest.raises(LinkBroken, match="ping"):
            run(wait())
        assert seconds() < 8

    def test_an_idle_connection_is_kept_by_pings(self, local: LocalPulsar, topic: str) -> None:
        """Load balancers forget connections on which nothing passes."""

        async def wait() -> None:
            producer = Producer(
                Endpoint(local.url, ping_interval=0.05), Topic.parse(topic), ProducerOptions()
            )
            await producer.open()
            try:
                await asyncio.to_thread(local.wait_until, lambda: local.counters.pings >= 3)
            finally:
                await producer.close()

        run(wait())

    def test_a_reply_that_is_too_long_is_not_read(self, local: LocalPulsar, topic: str) -> None:
        """What the other side sends must not fill our memory."""
        local.faults.garbage_receipts(1, "x" * 1_000_000)
        with pytest.raises(LinkBroken, match="1009"):
            run(publish(Endpoint(local.url), topic, "a"))

    def test_sending_on_a_connection_that_is_gone(self, local: LocalPulsar, topic: str) -> None:
        """Is a broken link too, however the loss is noticed."""

        async def send() -> None:
            producer = Producer(Endpoint(local.url), Topic.parse(topic), ProducerOptions())
            await producer.open()
            local.drop_connections()
            frame = encode_frame(Message(payload="x" * 100_000), "c", 1 << 20)
            try:
                while True:
                    await producer.send(frame)
            finally:
                await producer.close()

        with pytest.raises(LinkBroken, match="while sending"):
            run(send())

    def test_before_it_is_open_there_is_no_connection(self, topic: str) -> None:
        """Sending, closing and aborting end all the same."""
        producer = Producer(Endpoint("ws://127.0.0.1:1"), Topic.parse(topic), ProducerOptions())
        with pytest.raises(LinkBroken, match="not open"):
            run(producer.send(b"x"))
        run(producer.close())
        producer.abort()
        assert producer.descriptor is None


def test_the_sockets_descriptor_is_known_while_it_is_open(local: LocalPulsar, topic: str) -> None:
    """A forked child must let go of it."""

    async def look() -> None:
        producer = Producer(Endpoint(local.url), Topic.parse(topic), ProducerOptions())
        await producer.open()
        descriptor = producer.descriptor
        assert descriptor is not None
        with socket.socket(fileno=socket.dup(descriptor)) as copy:
            assert copy.getpeername()[1] == local.port
        await producer.close()
        assert producer.descriptor is None

    run(look())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PulsarServer, TLSFiles]]:
    """A broker that demands tokens and, over TLS, a client's certificate."""
    require(pulsar_module.missing_reason())
    require(credentials.tls_missing_reason())
    folder = tmp_path_factory.mktemp("guarded")
    tls = credentials.make_tls(folder / "tls", require_client=True)
    server = PulsarServer(folder / "data", token_secret=SECRET, tls=tls)
    server.start()
    try:
        yield server, tls
    finally:
        # Nobody needs its data, and a clean stop takes seconds.
        server.kill()


def plain_url(server: PulsarServer) -> str:
    """The broker's WebSocket URL without TLS."""
    return f"ws://127.0.0.1:{server.http_port}"


class TestToken:
    """Bearer tokens."""

    def test_a_good_one(self, guarded: tuple[PulsarServer, TLSFiles], topic: str) -> None:
        """With or without the word Bearer before it."""
        server, _ = guarded
        token = server.token("admin")
        assert token is not None
        endpoint = Endpoint(plain_url(server), token=token)
        assert run(publish(endpoint, topic, "x")) == ["ok"]
        assert run(publish(replace(endpoint, token=f"Bearer {token}"), topic, "x")) == ["ok"]

    def test_a_callable_is_asked_at_each_handshake(
        self, guarded: tuple[PulsarServer, TLSFiles], topic: str
    ) -> None:
        """A token that expires is no reason to restart."""
        server, _ = guarded
        tokens = [server.token("admin", -60), server.token("admin")]
        endpoint = Endpoint(plain_url(server), token=lambda: str(tokens.pop(0)))
        assert refused(endpoint, topic).status == 401
        assert run(publish(endpoint, topic, "x")) == ["ok"]
        assert tokens == []

    def test_none_or_an_expired_or_a_foreign_one(
        self, guarded: tuple[PulsarServer, TLSFiles], topic: str
    ) -> None:
        """401, permanent."""
        server, _ = guarded
        foreign = credentials.make_token(b"another secret of thirty-two bytes!", "admin")
        for token in (None, server.token("admin", -60), foreign):
            found = refused(Endpoint(plain_url(server), token=token), topic)
            assert (found.status, found.permanent) == (401, True)
            assert token is None or token not in str(found)

    def test_a_role_that_may_not_produce(
        self, guarded: tuple[PulsarServer, TLSFiles], topic: str
    ) -> None:
        """403, permanent; and fine as soon as it is allowed."""
        server, _ = guarded
        endpoint = Endpoint(plain_url(server), token=server.token("clerk"))
        found = refused(endpoint, topic)
        assert (found.status, found.permanent) == (403, True)
        server.admin.grant("public/default", "clerk")
        assert run(publish(endpoint, topic, "x")) == ["ok"]

    def test_a_callable_that_fails_or_gives_no_text(self, topic: str) -> None:
        """The error names the setting, and holds nothing of what the callable had."""

        def fail() -> str:
            raise ValueError("s3cret")

        bad: list[Callable[[], Any]] = [fail, lambda: None, lambda: "", lambda: "two\r\nlines: x"]
        for token in bad:
            with pytest.raises(ConfigurationError, match="stargate_token") as caught:
                run(publish(Endpoint("ws://127.0.0.1:1", token=token), topic))
            assert "s3cret" not in str(caught.value)
            assert "lines" not in str(caught.value)

    def test_it_is_in_no_log_at_debug_level(
        self,
        guarded: tuple[PulsarServer, TLSFiles],
        topic: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Nor are payloads and keys: not from us, not from websockets, not from asyncio."""
        server, tls = guarded
        caplog.set_level(logging.DEBUG)
        for name in ("websockets", "websockets.client", "celery_stargate", "asyncio"):
            caplog.set_level(logging.DEBUG, logger=name)
        token = str(server.token("admin"))
        expired = str(server.token("admin", -60))
        secure = Endpoint(
            server.url,
            token=token,
            tls_ca=str(tls.ca),
            tls_certificate=str(tls.client_certificate),
            tls_key=str(tls.client_key),
        )
        payload = "a payload that nobody may read"
        assert run(publish(Endpoint(plain_url(server), token=token), topic, payload)) == ["ok"]
        assert run(publish(secure, topic, payload)) == ["ok"]
        found = refused(Endpoint(plain_url(server), token=expired), topic)
        with pytest.raises(LinkBroken) as broken:
            run(publish(Endpoint("ws://127.0.0.1:1", token=token), topic))
        logging.getLogger("celery_stargate").debug("the handler hears this")
        said = caplog.text + repr(secure) + repr(found) + str(broken.value) + repr(broken.value)
        assert "the handler hears this" in said
        encoded = base64.b64encode(payload.encode()).decode()
        for secret in (token, expired, payload, encoded, token.rpartition(".")[2]):
            assert secret not in said


class TestTLS:
    """``wss``: the authority, the client's certificate, the server's name."""

    def endpoint(self, guarded: tuple[PulsarServer, TLSFiles], **changes: Any) -> Endpoint:
        """An endpoint with all that is needed, but for the changes."""
        server, tls = guarded
        return replace(
            Endpoint(
                server.url,
                token=server.token("admin"),
                tls_ca=str(tls.ca),
                tls_certificate=str(tls.client_certificate),
                tls_key=str(tls.client_key),
            ),
            **changes,
        )

    def test_with_authority_and_certificate(
        self, guarded: tuple[PulsarServer, TLSFiles], topic: str
    ) -> None:
        """The message is stored."""
        assert run(publish(self.endpoint(guarded), topic, "x")) == ["ok"]

    def test_a_server_that_no_authority_vouches_for(
        self, guarded: tuple[PulsarServer, TLSFiles], topic: str
    ) -> None:
        """The system's authorities do not know ours."""
        with pytest.raises(LinkBroken, match="certificate verify failed"):
            run(publish(self.endpoint(guarded, tls_ca=None), topic, "x"))

    def test_no_clients_certificate_where_one_is_demanded(
        self, guarded: tuple[PulsarServer, TLSFiles], topic: str
    ) -> None:
        """The broker ends the handshake."""
        with pytest.raises(LinkBroken):
            run(publish(self.endpoint(guarded, tls_certificate=None, tls_key=None), topic, "x"))

    def test_the_servers_name_is_checked(
        self, guarded: tuple[PulsarServer, TLSFiles], topic: str
    ) -> None:
        """By default the URL's; another one by setting, as behind a load balancer."""
        assert run(publish(self.endpoint(guarded, tls_server_name="localhost"), topic, "x")) == [
            "ok"
        ]
        with pytest.raises(LinkBroken, match="certificate verify failed"):
            run(publish(self.endpoint(guarded, tls_server_name="example.org"), topic, "x"))

    def test_files_that_are_something_else(
        self, guarded: tuple[PulsarServer, TLSFiles], topic: str
    ) -> None:
        """Told as a matter of the settings."""
        _, tls = guarded
        for change in (
            {"tls_ca": str(tls.client_key)},
            {"tls_key": str(tls.server_key)},
            {"tls_certificate": str(tls.client_key)},
        ):
            with pytest.raises(ConfigurationError, match="cannot be loaded"):
                run(publish(self.endpoint(guarded, **change), topic, "x"))


def test_a_frame_over_the_brokers_limit_closes_the_connection(
    endpoint: Endpoint, topic: str
) -> None:
    """Why such a frame is refused in the caller: everything else in flight would go with it."""
    big = json.dumps({"payload": "x" * 1_100_000, "context": "c"}).encode()

    async def send() -> None:
        producer = Producer(endpoint, Topic.parse(topic), ProducerOptions())
        await producer.open()
        try:
            await producer.send(big)
            await anext(producer.replies())
        finally:
            await producer.close()

    with pytest.raises(LinkBroken, match="1009"):
        run(send())
