"""What the integration tests share: a plain reader, the callbacks' queue, a proxy with faults."""

from __future__ import annotations

import base64
import errno
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from celery import Celery
from websockets.sync.client import connect

from celery_stargate import Stargate
from celery_stargate.calls.prepare import prepare
from celery_stargate.effects.signatures import NO_CALLBACKS
from tests.servers.ports import free_ports

#: The bound on every wait; nothing should come near it.
WAIT = 20.0


def wait_for(condition: Callable[[], Any], timeout: float = WAIT, what: str = "") -> Any:
    """Return what a condition gives as soon as it is true; where no event tells of it.

    Raises:
        AssertionError: it was not in time.
    """
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {timeout:g} s: {what or condition}"
        time.sleep(0.01)
    return found


def topic_path(topic: str) -> str:
    """Return a topic's full name as it stands in a URL."""
    domain, _, rest = topic.partition("://")
    tenant, namespace, name = rest.split("/", 2)
    return f"{domain}/{tenant}/{namespace}/{quote(name, safe='')}"


class Reader:
    """A plain WebSocket reader of one topic from its beginning: no code of the package."""

    def __init__(self, url: str, topic: str, *, token: str | None = None) -> None:
        self._open = ExitStack()
        self._socket = self._open.enter_context(
            connect(
                f"{url}/ws/v2/reader/{topic_path(topic)}?messageId=earliest",
                additional_headers={"Authorization": f"Bearer {token}"} if token else {},
                compression=None,
                open_timeout=45,
                max_size=None,
                proxy=None,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def next(self, timeout: float = WAIT) -> dict[str, Any]:
        """Return the next message as Pulsar delivers it, its payload as bytes.

        Raises:
            TimeoutError: there is none in time.
        """
        message: dict[str, Any] = json.loads(self._socket.recv(timeout))
        self._socket.send(json.dumps({"messageId": message["messageId"]}))
        message["payload"] = base64.b64decode(message["payload"])
        return message

    def take(self, count: int) -> list[dict[str, Any]]:
        """Return the next messages."""
        return [self.next() for _ in range(count)]

    def rest(self, silence: float = 0.3) -> list[dict[str, Any]]:
        """Return what comes until nothing comes for a moment."""
        found = []
        while True:
            try:
                found.append(self.next(silence))
            except TimeoutError:
                return found


def read_back(url: str, topic: str, count: int) -> list[bytes]:
    """Return the payloads of a topic, all of them: at least ``count``."""
    with Reader(url, topic) as reader:
        found = reader.take(count)
        return [message["payload"] for message in found + reader.rest()]


class Triggered:
    """The callbacks that were published to the app's queue, which no worker reads."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def next(self, timeout: float = WAIT) -> dict[str, Any]:
        """Return the next one: its ``id``, ``task``, ``args``, ``kwargs``, ``embed``."""
        connection: Any = self._app.connection_for_read()
        with connection, connection.SimpleQueue(self._app.conf.task_default_queue) as queue:
            message = queue.get(timeout=timeout)
            message.ack()
            args, kwargs, embed = message.payload
            return {
                "id": message.headers["id"],
                "task": message.headers["task"],
                "args": args,
                "kwargs": kwargs,
                "embed": embed,
            }

    def none(self, silence: float = 0.3) -> bool:
        """Whether none comes for a moment."""
        try:
            self.next(silence)
        except Empty:
            return True
        return False


class Proxy:
    """A TCP proxy on a port of its own that can lose what the server says, or be away.

    Each socket is closed by the thread that uses it; others only shut it down, which wakes that
    thread. A number that is closed while it is used may name another socket a moment later.

    Arguments:
        port: of the server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        #: Guards what follows: a connection is either seen by ``cut``, or made after it.
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._connections: dict[_Connection, threading.Thread] = {}
        self._lose: tuple[Callable[[bytes], bool], Callable[[], object]] | None = None
        #: How many answers were lost so far.
        self.lost = 0
        self.port = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Listen; again on the same port after ``close``."""
        listener = socket.create_server(("127.0.0.1", self.port or free_ports(1)[0]))
        # ``cut`` accepts, too: neither may wait for a connection that the other has taken.
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Refuse connections, cut those there are, and wait until nothing is left of them.

        Raises:
            AssertionError: a thread has not ended in time.
        """
        with self._lock:
            listener, self._listener = self._listener, None
            acceptor, self._acceptor = self._acceptor, None
            if listener is not None:
                # Wakes its thread, and resets what waits to be accepted.
                listener.shutdown(socket.SHUT_RDWR)
        if acceptor is not None:
            _join(acceptor)
        # From here on no connection can come.
        self.cut()

    def cut(self) -> None:
        """Cut all connections, and wait until they are closed.

        Raises:
            AssertionError: a thread has not ended in time.
        """
        with self._lock:
            # A client may have its connection before it is accepted here.
            self._take()
            cut, self._connections = self._connections, {}
            for connection in cut:
                connection.shut_down()
        for thread in cut.values():
            _join(thread)

    def lead_to(self, port: int) -> None:
        """Lead new connections to another server; those there are stay with the old one."""
        self._target = port

    def lose_answer_to(
        self, request: Callable[[bytes], bool], then: Callable[[], object] = lambda: None
    ) -> None:
        """Let the next matching request pass, and cut its connection in place of the answer.

        Arguments:
            request: chooses it by its bytes.
            then: is called when the answer was taken, before the connection is cut.
        """
        self._lose = request, then

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                select.select([listener], [], [])
                with self._lock:
                    if self._listener is not listener:
                        return
                    self._take()

    def _take(self) -> None:
        """Accept all connections that wait; the lock is held."""
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.setblocking(True)
            connection = _Connection(client)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: _Connection) -> None:
        try:
            with suppress(OSError), connection:
                if connection.connect(self._target):
                    self._pump(connection.client, connection.server)
        finally:
            with self._lock:
                self._connections.pop(connection, None)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        then: Callable[[], object] | None = None
        while True:
            ready, _, _ = select.select([client, server], [], [])
            if client in ready:
                data = client.recv(1 << 20)
                lose = self._lose
                if lose is not None and lose[0](data):
                    self._lose = None
                    then = lose[1]
                server.sendall(data)
                if not data:
                    return
            if server in ready:
                data = server.recv(1 << 20)
                if not data:
                    return
                if then is not None:
                    self.lost += 1
                    then()
                    return
                client.sendall(data)


class _Connection:
    """A client's socket, and the one to the server; closed by the thread that uses them."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server = socket.socket()
        self._cut = False
        self._closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shut_down()
        with self._lock:
            self._closed = True
            self.client.close()
            self.server.close()

    def connect(self, port: int) -> bool:
        """Connect to the server; False where ``shut_down`` came first.

        Raises:
            OSError: nothing listens there, or ``shut_down`` came in between.
        """
        with self._lock:
            if self._cut:
                return False
            # Begun under the lock, so that ``shut_down`` ends it, and does not come before it: a
            # server that accepts nothing may leave it waiting for minutes.
            self.server.setblocking(False)
            begun = self.server.connect_ex(("127.0.0.1", port))
        if begun not in (0, errno.EINPROGRESS):
            raise OSError(begun, os.strerror(begun))
        select.select([], [self.server], [])
        failed = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed))
        self.server.setblocking(True)
        with self._lock:
            return not self._cut

    def shut_down(self) -> None:
        """End both ways of both, which wakes the thread that waits for them."""
        with self._lock:
            self._cut = True
            if self._closed:
                return
            for each in self.client, self.server:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def _join(thread: threading.Thread) -> None:
    thread.join(WAIT)
    assert not thread.is_alive(), f"a thread of the proxy has not ended in {WAIT:g} s"


@contextmanager
def elapsed() -> Iterator[Callable[[], float]]:
    """Measure: the callable gives the seconds since the block began."""
    began = time.monotonic()
    yield lambda: time.monotonic() - began


def record_only(stargate: Stargate, message: object, context: str, topic: str) -> None:
    """Record a message in its lane for 60 s; nobody waits for it, and nothing follows."""
    runtime = stargate.runtime
    call = prepare(runtime.settings, message, context, topic)
    runtime.recorder.put(call, call.record(NO_CALLBACKS), timeout=60.0)
