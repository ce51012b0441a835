"""Fixtures of the security tests: those of the integration tests, and servers that mean harm."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration import conftest as integration
from tests.integration.cli.conftest import run
from tests.integration.conftest import local, make_app, prefix, topic
from tests.servers import credentials
from tests.servers.credentials import TLSFiles
from tests.servers.fixtures import require

__all__ = ["local", "make_app", "prefix", "run", "topic"]

_HERE = Path(__file__).parent
#: The bound on each wait of a server here, in seconds.
_WAIT = 20.0


def pytest_itemcollected(item: pytest.Item) -> None:
    """Take no offence at Celery's own warnings."""
    if item.path.is_relative_to(_HERE):
        for each in integration._CELERYS:  # noqa: SLF001
            item.add_marker(pytest.mark.filterwarnings(each))


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TLSFiles:
    """An authority, and good certificates of it."""
    require(credentials.tls_missing_reason())
    return credentials.make_tls(tmp_path_factory.mktemp("tls"))


class Listener:
    """A server on 127.0.0.1 that notes what comes, and does with each connection what it is told.

    Arguments:
        talk: gets the connection, and what came with its first read.
        greet: gets the connection in place of that read.
    """

    def __init__(
        self,
        talk: Callable[[socket.socket, bytes], None],
        greet: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self._talk = talk
        self._greet = greet
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port: int = self._socket.getsockname()[1]
        self.heard: list[bytes] = []

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no more, and wait for its thread."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_WAIT)
        self._socket.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(_WAIT)
                if self._greet is not None:
                    self._greet(connection)
                    continue
                data = connection.recv(65_536)
                self.heard.append(data)
                self._talk(connection, data)


@contextmanager
def listening(
    talk: Callable[[socket.socket, bytes], None],
    greet: Callable[[socket.socket], None] | None = None,
) -> Iterator[Listener]:
    """Run such a server."""
    listener = Listener(talk, greet)
    listener.start()
    try:
        yield listener
    finally:
        listener.stop()


def answering(answer: bytes) -> Callable[[socket.socket, bytes], None]:
    """Return what answers each connection with the same bytes."""
    return lambda connection, _: connection.sendall(answer)
