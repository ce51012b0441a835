"""What connections ask of the stand-in: endpoints, the admin API, and waits for a condition."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

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
from celery_stargate.testing.local_pulsar.topics import Cluster, TopicError


class Service:
    """The server side of all connections. It is used only in the stand-in's thread.

    Args:
        cluster: the topics.
        tokens: who may do what.
        faults: what goes wrong.
        counters: what is counted.
        max_frame: the largest frame, in bytes.
    """

    def __init__(
        self, cluster: Cluster, tokens: Tokens, faults: Faults, counters: Counters, max_frame: int
    ) -> None:
        self.counters = counters
        self.max_frame = max_frame
        #: The connections that are open, HTTP ones included.
        self.connections: set[Connection] = set()
        self._cluster = cluster
        self._tokens = tokens
        self._faults = faults
        self._admin = Admin(cluster, tokens)
        self._waiting: list[tuple[Callable[[], bool], Future[None]]] = []

    @property
    def frozen(self) -> bool:
        """Whether sockets are not read."""
        return self._faults.frozen

    def open(self, request: Request, peer: Peer) -> tuple[Endpoint, float]:
        """Return the endpoint for an upgrade request, and the delay of the answer in seconds.

        Raises:
            Refusal: the request is refused.
        """
        fault = self._faults.take_refusal()
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
                    address, peer, self._cluster, self._faults, self.counters
                )
            elif address.kind == "consumer":
                endpoint = ConsumerEndpoint(address, peer, self._cluster)
            else:
                endpoint = ReaderEndpoint(address, peer, self._cluster)
        except TopicError as error:
            raise not_created(error.status, error.reason) from None
        return endpoint, self._faults.take_delay()

    def call(self, method: str, target: str, authorization: str | None, body: bytes) -> bytes:
        """Answer a call of the admin API."""
        return self._admin.call(method, target, authorization, body)

    def joined(self, connection: Connection) -> None:
        """Note a new connection."""
        self.connections.add(connection)

    def left(self, connection: Connection) -> None:
        """Note a lost connection."""
        self.connections.discard(connection)

    def wait(self, condition: Callable[[], bool]) -> Future[None]:
        """Return a future that is done when a condition holds."""
        done: Future[None] = Future()
        self._waiting.append((condition, done))
        self.settled()
        return done

    def freeze(self) -> None:
        """Freeze or thaw the open connections, as the faults say."""
        for connection in tuple(self.connections):
            connection.freeze(self._faults.frozen)

    def drop_all(self, code: int | None) -> int:
        """Close all WebSockets with a close code, or abruptly (None); return how many."""
        alive = [one for one in self.connections if one.endpoint is not None]
        for one in alive:
            one.close(code if one.is_open else None)
        return len(alive)

    def settled(self) -> None:
        """Check the conditions that are waited for; something may have changed."""
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
