"""The helpers of these tests: every connection of the proxy ends, and ports stay their owners'."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from tests.integration import rig
from tests.integration.rig import Proxy, elapsed


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig, "WAIT", 5.0)


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections, by its kernel, and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]


def connect(proxy: Proxy) -> socket.socket:
    """A client's connection."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def ended(client: socket.socket) -> bool:
    """Whether the connection ends, cleanly or not."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_close_ends_connections_that_are_being_made(silent_server: int) -> None:
    """None is accepted behind its back: 122 of 300 closes waited for one that was never cut."""
    for _ in range(50):
        proxy = Proxy(silent_server)
        proxy.open()
        with ExitStack() as clients:

            def connect_once(proxy: Proxy = proxy, clients: ExitStack = clients) -> None:
                with suppress(OSError):
                    clients.enter_context(connect(proxy))

            threads = [threading.Thread(target=connect_once) for _ in range(3)]
            for thread in threads:
                thread.start()
            with elapsed() as took:
                proxy.close()
                assert took() < rig.WAIT / 2
            for thread in threads:
                thread.join()


def test_cut_ends_what_a_client_has_connected(silent_server: int) -> None:
    """Also where the proxy itself has not accepted it yet."""
    with Proxy(silent_server) as proxy:
        for _ in range(50):
            with connect(proxy) as client:
                proxy.cut()
                assert ended(client)


def test_close_ends_a_connection_that_the_server_does_not_take() -> None:
    """Its queue is full, so that the proxy's own connect hangs."""
    with ExitStack() as held:
        server = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = server.getsockname()[1]
        held.enter_context(socket.create_connection(("127.0.0.1", port)))
        with Proxy(port) as proxy, connect(proxy) as first, connect(proxy) as second:
            with elapsed() as took:
                proxy.close()
                assert took() < rig.WAIT / 2
            assert ended(first)
            assert ended(second)


def test_a_closed_proxy_refuses_and_serves_again(silent_server: int) -> None:
    """On the same port."""
    with Proxy(silent_server) as proxy:
        connect(proxy).close()
        proxy.close()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        proxy.open()
        with connect(proxy) as client:
            proxy.cut()
            assert ended(client)


def test_a_server_that_is_away_ends_the_connection(refusing_port: int) -> None:
    """The client's; the proxy goes on."""
    with Proxy(refusing_port) as proxy:
        for _ in range(2):
            with connect(proxy) as client:
                assert ended(client)


def test_a_refusing_port_refuses_and_stays_taken(refusing_port: int) -> None:
    """Nobody else can listen there in between."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", refusing_port), timeout=5)
    with pytest.raises(OSError, match="in use"), closing(socket.socket()) as other:
        other.bind(("127.0.0.1", refusing_port))
