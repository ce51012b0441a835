"""`LocalPulsar`: the stand-in as tests and demos use it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

import msgspec
from websockets.http11 import Request

from celery_stargate.testing.local_pulsar.address import read_address
from celery_stargate.testing.local_pulsar.admin import Admin
from celery_stargate.testing.local_pulsar.connection import Connection, Endpoint
from celery_stargate.testing.local_pulsar.consuming import ConsumerEndpoint, ReaderEndpoint
from celery_stargate.testing.local_pulsar.counters import Counters
from celery_stargate.testing.local_pulsar.faults import Faults, Peer
from celery_stargate.testing.local_pulsar.producing import ProducerEndpoint
from celery_stargate.testing.local_pulsar.refusal import Refusal, not_created
from celery_stargate.testing.local_pulsar.tokens import Tokens
from celery_stargate.testing.local_pulsar.topics import Cluster, StoredMessage, TopicError

T = TypeVar("T")

_START_TIMEOUT = 10.0
#: Seconds for the handshakes of TLS that are under way when it stops.
_ACCEPT_TIMEOUT = 1.0


class OpenSocket(msgspec.Struct, frozen=True):
    """A WebSocket: `producer`, `consumer` or `reader`, its topic, its name; and whether its
    handshake was answered, for one that waits holds its name already."""

    kind: str
    topic: str
    name: str
    answered: bool


class LocalPulsar:
    """A stand-in for Pulsar's WebSocket API, in a thread of this process.

    **A test and demo tool, not a broker**: it keeps everything in memory, does only what this
    package's tests compare with a real 4.0.7 broker (`tests/contract`), and forgets all of it at
    the end. What it adds are `faults`.

        with LocalPulsar() as pulsar:
            pulsar.faults.close_after_receipts(10)
            ...
            assert len(pulsar.messages("persistent://public/default/orders")) == 100

    What it leaves out: publishing limits and quotas, the queue limit of a batching producer
    (`maxPendingMessages`), `ackTimeoutMillis`, dead letters, multi-topic consumers (`/ws/v3`),
    encryption, schemas, the idle timeout. It is stricter than the broker with text behind a frame's
    JSON.

    It may be stopped and started again, on the same port, with its topics: a broker that restarts.

    Args:
        host: the address to listen on.
        port: a fixed port instead of a free one.
        namespaces: those that exist, as `tenant/namespace`.
        deduplication: the broker's `brokerDeduplicationEnabled`.
        token_secret: demand tokens signed with this secret (HS256).
        tokens: demand tokens, and accept these: token to role.
        superusers: roles that may do everything; others need `grant`.
        ssl_context: serve `wss` and `https`.
        max_frame: the broker's `webSocketMaxTextFrameSize`, in bytes.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        namespaces: Iterable[str] = ("public/default",),
        deduplication: bool = True,
        token_secret: bytes | None = None,
        tokens: Mapping[str, str] | None = None,
        superusers: Iterable[str] = ("admin",),
        ssl_context: ssl.SSLContext | None = None,
        max_frame: int = 1_048_576,
    ) -> None:
        self.host = host
        self.port = port
        self.max_frame = max_frame
        self.counters = Counters()
        self.faults = Faults(self._apply)
        self._ssl_context = ssl_context
        self._cluster = Cluster(namespaces, deduplication=deduplication)
        self._tokens = Tokens(secret=token_secret, fixed=tokens, superusers=frozenset(superusers))
        self._admin = Admin(self._cluster, self._tokens)
        self._open: set[Connection] = set()
        self._waiting: list[tuple[Callable[[], bool], Future[None]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: asyncio.Event | None = None

    # -- life -----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base of its WebSocket URLs: `ws://127.0.0.1:PORT`, or `wss`."""
        return f"{'ws' if self._ssl_context is None else 'wss'}://{self.host}:{self.port}"

    @property
    def http_url(self) -> str:
        """The base of its admin URLs; the same port, as in the broker."""
        return f"{'http' if self._ssl_context is None else 'https'}://{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._thread is not None

    def start(self) -> None:
        """Listen. When this returns, clients can connect.

        Raises:
            OSError: the port cannot be had.
            RuntimeError: it listens already.
        """
        if self._thread is not None:
            raise RuntimeError("this LocalPulsar runs already")
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="LocalPulsar", daemon=True
        )
        self._thread.start()
        try:
            started.result(_START_TIMEOUT)
        except BaseException:
            self._thread = None
            raise

    def stop(self) -> None:
        """Drop every socket without a close frame, as a broker that is killed, and listen no
        more. Harmless when it does not run."""
        thread, self._thread = self._thread, None
        loop, end = self._loop, self._end
        if thread is None or loop is None or end is None:
            return
        loop.call_soon_threadsafe(end.set)
        thread.join(_START_TIMEOUT)

    def restart(self) -> None:
        """Stop and start: same port, same topics."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- looking at it --------------------------------------------------------------------------

    def messages(self, topic: str) -> list[StoredMessage]:
        """What a topic holds, in order; a partitioned one partition by partition. Empty when there
        is no such topic.

        Args:
            topic: its full name, or its name in `public/default`.
        """

        def read() -> list[StoredMessage]:
            try:
                parts = self._cluster.existing(_full(topic))
            except TopicError:
                return []
            return [message for part in parts for message in part.messages]

        return self._do(read)

    def payloads(self, topic: str) -> list[bytes]:
        """The payloads of `messages(topic)`."""
        return [message.payload for message in self.messages(topic)]

    @property
    def connections(self) -> list[OpenSocket]:
        """The WebSockets that are open now."""

        def read() -> list[OpenSocket]:
            return [
                OpenSocket(one.endpoint.kind, one.endpoint.topic, one.endpoint.name, one.is_open)
                for one in self._open
                if one.endpoint is not None
            ]

        return self._do(read)

    def wait_until(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Wait until a condition holds. It is looked at after each frame and each lost socket, in
        the stand-in's thread.

        Raises:
            TimeoutError: it did not hold in time.
        """
        done: Future[None] = Future()
        self._do(lambda: self._waiting.append((condition, done)))
        self._apply(self.settled)
        try:
            done.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"the condition did not hold in {timeout:g} s") from None

    def wait_for_messages(
        self, topic: str, count: int, timeout: float = 5.0
    ) -> list[StoredMessage]:
        """Wait until a topic holds at least `count` messages; all of them.

        Raises:
            TimeoutError: it did not get them in time.
        """
        name = _full(topic)

        def enough() -> bool:
            try:
                parts = self._cluster.existing(name)
            except TopicError:
                return False
            return sum(len(part.messages) for part in parts) >= count

        self.wait_until(enough, timeout)
        return self.messages(topic)

    # -- doing things to it ---------------------------------------------------------------------

    def drop_connections(self, code: int | None = None) -> int:
        """Close all WebSockets, with a close code or abruptly; how many."""

        def drop() -> int:
            alive = [one for one in self._open if one.endpoint is not None]
            for one in alive:
                one.close(code if one.is_open else None)
            return len(alive)

        return self._do(drop)

    def inject(self, text: str) -> int:
        """Send a text frame that nobody asked for to all producers; how many."""

        def send() -> int:
            ends = [one for one in self._open if one.is_open and _is_producer(one)]
            for one in ends:
                one.write(text.encode())
            return len(ends)

        return self._do(send)

    def create_topic(self, topic: str, partitions: int = 0) -> None:
        """Make a topic, with that many partitions or none.

        Raises:
            TopicError: it exists, or its namespace does not.
        """
        self._do(lambda: self._cluster.create(_full(topic), partitions))

    def create_namespace(self, namespace: str) -> None:
        """Make a namespace, and its tenant.

        Raises:
            TopicError: it exists.
        """

        def create() -> None:
            self._cluster.tenants.add(namespace.partition("/")[0])
            self._cluster.create_namespace(namespace)

        self._do(create)

    def terminate(self, topic: str) -> None:
        """End a topic: nothing can be stored in it any more.

        Raises:
            TopicError: no such topic.
        """

        def end() -> None:
            for part in self._cluster.existing(_full(topic)):
                part.terminated = True

        self._do(end)

    def delete_topic(self, topic: str) -> None:
        """Remove a topic with its messages, whoever is connected.

        Raises:
            TopicError: no such topic.
        """
        self._do(lambda: self._cluster.delete(_full(topic), force=True))

    def grant(self, namespace: str, role: str, actions: Iterable[str] = ("produce",)) -> None:
        """Allow a role `produce` and/or `consume` on a namespace.

        Raises:
            TopicError: no such namespace.
        """
        allowed = set(actions)

        def allow() -> None:
            self._cluster.namespace(namespace).grants[role] = allowed

        self._do(allow)

    # -- what connections ask for (in the thread) -----------------------------------------------

    @property
    def frozen(self) -> bool:
        """Whether sockets are not read."""
        return self.faults.frozen

    def open(self, request: Request, peer: Peer) -> tuple[Endpoint, float]:
        """The endpoint for an upgrade request, and how late to answer.

        Raises:
            Refusal: there is none.
        """
        fault = self.faults.take_refusal()
        if fault is not None:
            raise Refusal(*fault)
        address = read_address(request.path)
        role = self._tokens.role(request.headers.get("Authorization"), address.query.get("token"))
        if self._tokens.required and role is None:
            raise Refusal(401, "Authentication required")
        if not self._tokens.superuser(role):
            namespace = self._cluster.namespaces.get(address.namespace)
            allowed = namespace.grants.get(role or "", set()) if namespace is not None else set()
            if ("produce" if address.kind == "producer" else "consume") not in allowed:
                raise Refusal(403, "Not authorized")
        endpoint: Endpoint
        try:
            if address.kind == "producer":
                endpoint = ProducerEndpoint(
                    address, peer, self._cluster, self.faults, self.counters
                )
            elif address.kind == "consumer":
                endpoint = ConsumerEndpoint(address, peer, self._cluster)
            else:
                endpoint = ReaderEndpoint(address, peer, self._cluster)
        except TopicError as error:
            raise not_created(error.status, error.reason) from None
        return endpoint, self.faults.take_delay()

    def call(self, method: str, target: str, authorization: str | None, body: bytes) -> bytes:
        """A call of the admin API."""
        return self._admin.call(method, target, authorization, body)

    def joined(self, connection: Connection) -> None:
        """A connection was made."""
        self._open.add(connection)

    def left(self, connection: Connection) -> None:
        """A connection was lost."""
        self._open.discard(connection)

    def settled(self) -> None:
        """Something happened: let go whoever waited for it."""
        if not self._waiting:
            return
        for entry in tuple(self._waiting):
            condition, done = entry
            try:
                if done.cancelled() or not condition():
                    continue
                done.set_result(None)
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                done.set_exception(error)
            self._waiting.remove(entry)

    # -- the thread -----------------------------------------------------------------------------

    async def _serve(self, started: Future[None]) -> None:
        loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        try:
            server = await loop.create_server(
                lambda: Connection(self), self.host, self.port, ssl=self._ssl_context
            )
        except OSError as error:
            started.set_exception(error)
            return
        # A restart comes back where clients look for it.
        self.port = server.sockets[0].getsockname()[1]
        self._loop = loop
        started.set_result(None)
        try:
            await self._end.wait()
        finally:
            self._loop = None
            # A client whose connection was accepted just now would be forgotten, and would wait
            # for an answer: accept no more, and let asyncio's tasks that accept end.
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())
            accepting = asyncio.all_tasks() - {asyncio.current_task()}
            if accepting:
                await asyncio.wait(accepting, timeout=_ACCEPT_TIMEOUT)
            server.close()
            for connection in tuple(self._open):
                connection.close(None)
            # The transports report the loss in the next round of the loop.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def _apply(self, change: Callable[[], None]) -> None:
        """Run something for a fault's setter, then freeze or thaw what is open."""

        def run() -> None:
            change()
            for connection in tuple(self._open):
                connection.freeze(self.faults.frozen)

        self._do(run)

    def _do(self, work: Callable[[], T]) -> T:
        """Run `work` in the stand-in's thread, which owns all state, and wait for its result."""
        loop = self._loop
        if loop is None or _running_loop() is loop:
            return work()
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                result.set_exception(error)

        try:
            loop.call_soon_threadsafe(run)
        except RuntimeError:  # it was stopped just now
            return work()
        return result.result(_START_TIMEOUT)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _is_producer(connection: Connection) -> bool:
    return connection.endpoint is not None and connection.endpoint.kind == "producer"


def _full(topic: str) -> str:
    return topic if "://" in topic else f"persistent://public/default/{topic}"
