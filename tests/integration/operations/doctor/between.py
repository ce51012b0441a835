"""A proxy between doctor and a server, for mistakes that no server here can be set up with."""

from __future__ import annotations

import re
import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Between", "ahead", "as_old", "slow", "without_admin"]

_READ = 1 << 16
_PONG = b"+PONG\r\n"
_VERSION = re.compile(rb"redis_version:\d\.\d")
_TIME = re.compile(rb"\*2\r\n\$10\r\n(\d{10})(\r\n\$\d+\r\n\d+\r\n)")


def _pass(data: bytes) -> bytes:
    return data


def _ask(data: bytes) -> bytes | None:
    return None


class Between:
    """A TCP proxy to a port of 127.0.0.1. A context manager.

    Arguments:
        target: the server's port.
        asked: gets what a client says; returns the answer if that is not the server's to give.
        answered: gets what the server says; returns what the client gets.
    """

    def __init__(
        self,
        target: int,
        *,
        asked: Callable[[bytes], bytes | None] = _ask,
        answered: Callable[[bytes], bytes] = _pass,
    ) -> None:
        self._target, self._asked, self._answered = target, asked, answered
        # Closed at the end, which wakes all that wait.
        self._end, self._ended = socket.socketpair()
        serve = self._serve

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def url(self, of_server: str) -> str:
        """Return the URL of the server with this proxy's port."""
        host = f"127.0.0.1:{self._server.server_address[1]}"
        return urlunsplit(urlsplit(of_server)._replace(netloc=host))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._end.close()
        # It waits for the threads of all connections.
        self._server.server_close()
        self._ended.close()

    def _serve(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            while True:
                ready, _, _ = select.select([client, server, self._ended], [], [])
                if self._ended in ready:
                    return
                for side in ready:
                    data = side.recv(_READ)
                    if not data:
                        return
                    if side is server:
                        client.sendall(self._answered(data))
                    elif (answer := self._asked(data)) is not None:
                        client.sendall(answer)
                        return
                    else:
                        server.sendall(data)


def slow(data: bytes) -> bytes:
    """Let a PING take 30 ms at least, as to a Redis far away."""
    if data == _PONG:
        time.sleep(0.03)
    return data


def as_old(data: bytes) -> bytes:
    """Let Redis say that it is version 6.0."""
    return _VERSION.sub(b"redis_version:6.0", data)


def ahead(data: bytes) -> bytes:
    """Let Redis' clock be a minute ahead."""
    found = _TIME.fullmatch(data)
    return data if found is None else b"*2\r\n$10\r\n%d%s" % (int(found[1]) + 60, found[2])


def without_admin(data: bytes) -> bytes | None:
    """Refuse the admin API, as a gateway does that lets WebSockets through only."""
    if not re.match(rb"[A-Z]+ /admin", data):
        return None
    return b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
