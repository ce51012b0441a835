"""`LocalPulsar`: the stand-in, as tests and demos use it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import msgspec

from celery_stargate.testing.local_pulsar.connection import Connection
from celery_stargate.testing.local_pulsar.counters import Counters
from celery_stargate.testing.local_pulsar.faults import Faults
from celery_stargate.testing.local_pulsar.loop import LoopThread
from celery_stargate.testing.local_pulsar.service import Service
from celery_stargate.testing.local_pulsar.tokens import Tokens
from celery_stargate.testing.local_pulsar.topics import Cluster, StoredMessage, TopicError
from celery_stargate.testing.produced import ANYTHING, Expected, check_produced
from celery_stargate.testing.receipts import PulsarReceipts


class OpenSocket(msgspec.Struct, frozen=True):
    """An open WebSocket.

    Args:
        kind: `producer`, `consumer` or `reader`.
        topic: its topic's full name.
        name: its name.
        answered: whether its handshake was answered; the name is taken before that.

    Example:
        >>> with LocalPulsar() as pulsar:
        ...     pulsar.connections
        []
    """

    kind: str
    topic: str
    name: str
    answered: bool


class LocalPulsar:
    """A stand-in for Pulsar's WebSocket API, in a thread of this process.

    **A test and demo tool, not a broker**: it keeps everything in memory and does only what this
    package's tests compare with a real 4.0.7 broker (`tests/contract`). Its `faults` make things
    go wrong.

    It lacks: publishing limits and quotas, the queue limit of a batching producer
    (`maxPendingMessages`), `ackTimeoutMillis`, dead letters, multi-topic consumers (`/ws/v3`),
    encryption, schemas, the idle timeout. Unlike the broker it refuses text behind a frame's JSON.

    It can be stopped and started again on the same port, with its topics, like a broker that
    restarts.

    It has more methods than a class should, and more arguments: each method is one step of a test,
    each argument one setting of the broker.

    Args:
        host: the address to listen on.
        port: a fixed port instead of a free one.
        namespaces: the existing namespaces, as `tenant/namespace`.
        deduplication: the broker's `brokerDeduplicationEnabled`.
        token_secret: demand tokens signed with this secret (HS256).
        tokens: demand tokens, and accept these: token to role.
        superusers: roles that may do everything; others need `grant`.
        ssl_context: serve `wss` and `https`.
        max_frame: the broker's `webSocketMaxTextFrameSize`, in bytes.

    Example:
        >>> with LocalPulsar() as pulsar:
        ...     url = f"{pulsar.url}/ws/v2/producer/persistent/public/default/orders"
        ...     receipt = produce(url, "one lamp")
        ...     pulsar.payloads("persistent://public/default/orders")
        [b'one lamp']
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
        self.counters = Counters()
        self.faults = Faults(self._apply)
        #: More names of topics, such as those of `stargate_topics`, to their full names.
        self.aliases: dict[str, str] = {}
        self._ssl_context = ssl_context
        self._cluster = Cluster(namespaces, deduplication=deduplication)
        access = Tokens(secret=token_secret, fixed=tokens, superusers=frozenset(superusers))
        self._service = Service(self._cluster, access, self.faults, self.counters, max_frame)
        self._thread = LoopThread(self._service, ssl_context)

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
        return self._thread.running

    def start(self) -> None:
        """Listen. When this returns, clients can connect.

        Raises:
            OSError: the port cannot be used.
            RuntimeError: it already listens.
        """
        # A restart listens on the same port, where clients look for it.
        self.port = self._thread.start(self.host, self.port)

    def stop(self) -> None:
        """Drop every socket without a close frame, like a killed broker, and stop listening.

        It does nothing if it does not run.
        """
        self._thread.stop()

    def restart(self) -> None:
        """Stop and start again, on the same port and with the same topics."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # -- looking at it --------------------------------------------------------------------------

    def messages(self, topic: str) -> list[StoredMessage]:
        """Return a topic's messages in order, of a partitioned topic one partition after another.

        The list is empty if the topic does not exist.

        Args:
            topic: its full name, its name in `public/default`, or one of the `aliases`.
        """

        def read() -> list[StoredMessage]:
            try:
                parts = self._cluster.existing(self._full(topic))
            except TopicError:
                return []
            return [message for part in parts for message in part.messages]

        return self._thread.do(read)

    def payloads(self, topic: str) -> list[bytes]:
        """Return the payloads of `messages(topic)`."""
        return [message.payload for message in self.messages(topic)]

    @property
    def receipts(self) -> PulsarReceipts:
        """Hold receipts, or have failures instead: the usual of its `faults`."""
        return PulsarReceipts(self.faults)

    @property
    def topics(self) -> Mapping[str, int]:
        """How many messages each topic has, by its full name; each partition is a topic."""
        return self._thread.do(
            lambda: {name: len(one.messages) for name, one in self._cluster.topics.items()}
        )

    def assert_produced(
        self,
        topic: str,
        *,
        payload: Any = ANYTHING,
        key: Any = ANYTHING,
        properties: Mapping[str, Any] | None = None,
        count: int | None = None,
        timeout: float = 5.0,
    ) -> list[StoredMessage]:
        """Check that messages like these are in a topic, or come soon, and return them.

        Args:
            topic: as in `messages`.
            payload: bytes; text; or any JSON value, which is compared with the decoded payload.
            key: the key; None for messages without one.
            properties: properties that the messages have; others do not matter.
            count: how many messages match; None: at least one; 0: none, and nothing is waited for.
            timeout: seconds to wait for them: a worker may still publish.

        Raises:
            AssertionError: they are not there; the text shows the nearest messages.
        """
        return check_produced(
            lambda: self.messages(topic),
            self._full(topic),
            Expected(payload, key, properties),
            count=count,
            timeout=timeout,
            others=lambda: self.topics,
        )

    @property
    def connections(self) -> list[OpenSocket]:
        """The WebSockets that are open now."""

        def read() -> list[OpenSocket]:
            return [
                OpenSocket(one.endpoint.kind, one.endpoint.topic, one.endpoint.name, one.is_open)
                for one in self._service.connections
                if one.endpoint is not None
            ]

        return self._thread.do(read)

    def wait_until(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Wait until a condition holds.

        It is checked in the stand-in's thread, after each frame and each lost connection.

        Args:
            condition: returns whether it holds.
            timeout: seconds.

        Raises:
            TimeoutError: it did not hold in time.
        """
        done = self._thread.do(lambda: self._service.wait(condition))
        try:
            done.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"the condition did not hold in {timeout:g} s") from None

    def wait_for_messages(
        self, topic: str, count: int, timeout: float = 5.0
    ) -> list[StoredMessage]:
        """Wait until a topic has at least `count` messages, and return them all.

        Args:
            topic: its full name, or one of `aliases`.
            count: how many messages.
            timeout: seconds.

        Raises:
            TimeoutError: it did not get them in time.
        """
        name = self._full(topic)

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
        """Close all WebSockets, with a close code or abruptly (None), and return how many."""
        return self._thread.do(lambda: self._service.drop_all(code))

    def inject(self, text: str) -> int:
        """Send an unexpected text frame to all producers, and return how many."""

        def send() -> int:
            ends = [one for one in self._service.connections if one.is_open and _is_producer(one)]
            for one in ends:
                one.write(text.encode())
            return len(ends)

        return self._thread.do(send)

    def create_topic(self, topic: str, partitions: int = 0) -> None:
        """Create a topic, with some partitions or (0) without.

        Raises:
            TopicError: it exists, or its namespace does not.
        """
        self._thread.do(lambda: self._cluster.create(self._full(topic), partitions))

    def create_namespace(self, namespace: str) -> None:
        """Create a namespace and its tenant.

        Raises:
            TopicError: it exists.
        """

        def create() -> None:
            self._cluster.tenants.add(namespace.partition("/")[0])
            self._cluster.create_namespace(namespace)

        self._thread.do(create)

    def terminate(self, topic: str) -> None:
        """Terminate a topic: it stores nothing more.

        Raises:
            TopicError: no such topic.
        """

        def end() -> None:
            for part in self._cluster.existing(self._full(topic)):
                part.terminated = True

        self._thread.do(end)

    def delete_topic(self, topic: str) -> None:
        """Delete a topic with its messages, even if clients are connected.

        Raises:
            TopicError: no such topic.
        """
        self._thread.do(lambda: self._cluster.delete(self._full(topic), force=True))

    def grant(self, namespace: str, role: str, actions: Iterable[str] = ("produce",)) -> None:
        """Allow a role `produce` and/or `consume` on a namespace.

        Args:
            namespace: `tenant/namespace`.
            role: the role's name.
            actions: what it may do.

        Raises:
            TopicError: no such namespace.
        """
        allowed = set(actions)

        def allow() -> None:
            self._cluster.namespace(namespace).grants[role] = allowed

        self._thread.do(allow)

    def _full(self, topic: str) -> str:
        topic = self.aliases.get(topic, topic)
        return topic if "://" in topic else f"persistent://public/default/{topic}"

    def _apply(self, change: Callable[[], None]) -> None:
        """Run a fault's change, then freeze or thaw the connections."""

        def run() -> None:
            change()
            self._service.freeze()

        self._thread.do(run)


def _is_producer(connection: Connection) -> bool:
    return connection.endpoint is not None and connection.endpoint.kind == "producer"
