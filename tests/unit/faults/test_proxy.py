"""The proxy with toxics: what passes, when, and what does not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.proxy import ToxicProxy, split_frames


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that says again what it hears."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(4096):
                    client.sendall(data)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo: int) -> Iterator[ToxicProxy]:
    with ToxicProxy(echo) as proxy:
        yield proxy


def connect(proxy: ToxicProxy, timeout: float = 5.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout)


def take(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def until_end(client: socket.socket) -> bytes:
    data = b""
    try:
        while more := client.recv(4096):
            data += more
    except ConnectionError:
        pass
    return data


def test_bytes_pass(proxy: ToxicProxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"hello")
        assert take(client, 5) == b"hello"
    assert proxy.connections == 1


def test_latency_delays_and_keeps_the_order(proxy: ToxicProxy) -> None:
    proxy.latency = 0.1
    with connect(proxy) as client:
        began = time.monotonic()
        for part in (b"one", b"two"):
            client.sendall(part)
        assert take(client, 6) == b"onetwo"
        assert 0.2 <= time.monotonic() - began < 5


def test_a_cut_comes_after_so_many_bytes(proxy: ToxicProxy) -> None:
    with connect(proxy) as client:
        proxy.cut_after(3, answers=True)
        client.sendall(b"abcde")
        assert until_end(client) == b"abc"
    assert proxy.cuts == 1


def test_half_open_takes_all_and_says_nothing(proxy: ToxicProxy) -> None:
    with connect(proxy, timeout=0.2) as client:
        proxy.half_open = True
        client.sendall(b"hello")
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.heal()
        client.settimeout(5)
        assert until_end(client) == b""
    with connect(proxy) as client:
        client.sendall(b"again")
        assert take(client, 5) == b"again"


def test_held_answers_come_after_release(proxy: ToxicProxy) -> None:
    with connect(proxy, timeout=0.2) as client:
        proxy.hold(answers_only=True)
        client.sendall(b"hello")
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.release()
        client.settimeout(5)
        assert take(client, 5) == b"hello"


def test_slices_are_slow(proxy: ToxicProxy) -> None:
    proxy.slices = 1, 0.02
    with connect(proxy) as client:
        began = time.monotonic()
        client.sendall(b"hello")
        assert take(client, 5) == b"hello"
        assert time.monotonic() - began >= 0.08


def test_refused_until_it_accepts(proxy: ToxicProxy) -> None:
    with connect(proxy) as client:
        proxy.refuse()
        assert until_end(client) == b""
    with pytest.raises(OSError):
        connect(proxy)
    proxy.accept()
    with connect(proxy) as client:
        client.sendall(b"x")
        assert take(client, 1) == b"x"


def test_frames_are_filtered_after_the_handshake(proxy: ToxicProxy) -> None:
    handshake = b"HTTP/1.1 101 Switching\r\n\r\n"
    first, second = b"\x81\x03one", b"\x81\x03two"
    proxy.frames = lambda frames: frames[::-1]
    with connect(proxy) as client:
        client.sendall(handshake + first + second)
        assert take(client, len(handshake) + 10) == handshake + second + first


@pytest.mark.parametrize("size", [5, 200, 70_000])
def test_frames_of_each_form_are_split(size: int) -> None:
    if size < 126:
        frame = bytes((0x81, size))
    elif size < 1 << 16:
        frame = bytes((0x81, 126)) + size.to_bytes(2, "big")
    else:
        frame = bytes((0x81, 127)) + size.to_bytes(8, "big")
    frame += b"x" * size
    whole = frame * 3
    for cut in (1, 5, len(frame) - 1):
        assert split_frames(whole[:-cut]) == ([frame] * 2, frame[:-cut])
