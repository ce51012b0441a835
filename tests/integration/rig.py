"""What the integration tests share: a plain reader, the callbacks' queue, a proxy with faults."""

from __future__ import annotations

import base64
import json
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

    Arguments:
        port: of the server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
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
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._start(self._accept, listener)

    def close(self) -> None:
        """Refuse connections, and cut those there are."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # A close alone leaves the thread in accept().
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(WAIT)
        self._threads.clear()

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _end(pair)

    def lose_answer_to(
        self, request: Callable[[bytes], bool], then: Callable[[], object] = lambda: None
    ) -> None:
        """Let the next matching request pass, and cut its connection in place of the answer.

        Arguments:
            request: chooses it by its bytes.
            then: is called when the answer was taken, before the connection is cut.
        """
        self._lose = request, then

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=WAIT)
            except OSError:
                client.close()
                continue
            pair = client, server
            with self._lock:
                self._pairs.append(pair)
            self._start(self._pump, pair)

    def _pump(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        then: Callable[[], object] | None = None
        try:
            while True:
                ready, _, _ = select.select([client, server], [], [], WAIT)
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
        except (OSError, ValueError):
            return
        finally:
            _end(pair)


def _end(pair: tuple[socket.socket, socket.socket]) -> None:
    for each in pair:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@contextmanager
def elapsed() -> Iterator[Callable[[], float]]:
    """Measure: the callable gives the seconds since the block began."""
    began = time.monotonic()
    yield lambda: time.monotonic() - began
