"""A TCP proxy with toxics, for the links to Pulsar and Redis: an event loop in a thread of its own.

It is what `tests.integration.rig.Proxy` is not: bytes come late, slowly, in part, or never, and the
frames that Pulsar's WebSocket service sends may be lost or change their order.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tests.servers.ports import free_ports

__all__ = ["Frames", "ToxicProxy", "split_frames"]

#: What a filter of frames gets, and returns: whole WebSocket frames.
Frames = Callable[[list[bytes]], list[bytes]]
_READ = 1 << 16
_UP, _DOWN = "up", "down"


def split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Split what a WebSocket server sent, without masks, into frames and the rest of the last."""
    frames, start = [], 0
    while len(data) - start >= 2:
        length, head = data[start + 1] & 0x7F, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            head += size
            if len(data) - start < head:
                break
            length = int.from_bytes(data[start + 2 : start + head], "big")
        if len(data) - start < head + length:
            break
        frames.append(data[start : start + head + length])
        start += head + length
    return frames, data[start:]


class ToxicProxy:
    """A proxy to a port of 127.0.0.1. A context manager.

    Attributes:
        latency: seconds that each byte is late, in each direction; throughput stays.
        slices: (bytes, seconds): so many bytes at a time, and a wait after each; None: all at once.
        half_open: accept connections, and forward nothing, of old ones and new ones.
        frames: changes what a WebSocket server sends after its handshake, frame by frame.

    Args:
        target: the server's port.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = free_ports(1)[0]
        self.latency = 0.0
        self.slices: tuple[int, float] | None = None
        self.half_open = False
        self.frames: Frames | None = None
        self._left: dict[str, int | None] = {_UP: None, _DOWN: None}
        #: How many connections were made, and cut because of `cut_after`.
        self.connections = self.cuts = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._listener: socket.socket | None = None
        self._open: set[asyncio.StreamWriter] = set()
        #: How often all connections were cut, by which one notices it that has no writer yet.
        self._cut_count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._may_go: dict[str, asyncio.Event] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def hold(self, *, answers_only: bool = False) -> None:
        """Keep bytes back until `release`: in both directions, or only what the server says."""
        self._call(self._let(go=False, ways=(_DOWN,) if answers_only else (_UP, _DOWN)))

    def release(self) -> None:
        """Let what was kept back go on, in order."""
        self._call(self._let(go=True, ways=(_UP, _DOWN)))

    def cut(self) -> None:
        """Reset all connections."""
        self._call(self._cut())

    def refuse(self) -> None:
        """Reset all connections, and refuse new ones until `accept`."""
        self._call(self._refuse())

    def accept(self) -> None:
        """Listen again after `refuse`."""
        self._call(self._listen())

    def cut_after(self, count: int, *, answers: bool) -> None:
        """Reset the connection that carries the byte of that number from now on, after it.

        Args:
            answers: whether the server's bytes are counted, or the client's.
        """
        self._left[_DOWN if answers else _UP] = count

    def heal(self) -> None:
        """Take all toxics away; connections that were half-open are cut, as bytes are missing."""
        self.latency, self.slices, self.frames = 0.0, None, None
        self._left = {_UP: None, _DOWN: None}
        if self.half_open:
            self.half_open = False
            self.cut()
        self.release()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> None:
        if not self._may_go:
            self._may_go = {_UP: asyncio.Event(), _DOWN: asyncio.Event()}
            await self._let(go=True, ways=(_UP, _DOWN))
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._accept)

    async def _refuse(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._loop.remove_reader(listener)
            listener.close()
        await self._cut()

    async def _let(self, *, go: bool, ways: tuple[str, ...]) -> None:
        for way in ways:
            if go:
                self._may_go[way].set()
            else:
                self._may_go[way].clear()

    async def _cut(self) -> None:
        self._cut_count += 1
        for writer in list(self._open):
            writer.transport.abort()

    async def _close(self) -> None:
        await self._refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        # An asyncio server that is closed leaves open what it has just accepted.
        if self._listener is None:
            return
        with suppress(OSError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._serve(sock, self._cut_count))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, cut_count: int) -> None:
        client, to_client = await asyncio.open_connection(sock=sock)
        if cut_count != self._cut_count:
            # It was cut before it had a writer.
            to_client.transport.abort()
            return
        self.connections += 1
        self._open.add(to_client)
        to_server: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError):
                server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
                self._open.add(to_server)
                ways = (
                    asyncio.create_task(_Way(self, _UP, client, to_server).run()),
                    asyncio.create_task(_Way(self, _DOWN, server, to_client).run()),
                )
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
        except asyncio.CancelledError:
            # The proxy ends.
            pass
        finally:
            for writer in (to_client, to_server):
                if writer is not None:
                    self._open.discard(writer)
                    # A client must see a cut, and not wait for bytes that are still to be sent.
                    writer.transport.abort()

    async def wait_until_free(self, way: str) -> None:
        """Wait while bytes are kept back."""
        await self._may_go[way].wait()

    def take(self, way: str, data: bytes) -> tuple[bytes, bool]:
        """Return what of some bytes may pass, and whether the connection is cut after them."""
        left = self._left[way]
        if left is None:
            return data, False
        if len(data) < left:
            self._left[way] = left - len(data)
            return data, False
        self._left[way] = None
        self.cuts += 1
        return data[:left], True


class _Way:
    """One direction of one connection: a reader, a queue of what is late, and a writer."""

    def __init__(
        self,
        proxy: ToxicProxy,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy, self._name, self._reader, self._writer = proxy, name, reader, writer
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=10_000)
        self._upgraded = False
        self._rest = b""

    async def run(self) -> None:
        """Forward until one side ends."""
        reading = asyncio.create_task(self._read())
        try:
            await self._write()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            try:
                data = await self._reader.read(_READ)
            except OSError:
                data = b""
            await self._queue.put((loop.time() + self._proxy.latency, data))

    async def _write(self) -> None:
        proxy, loop = self._proxy, asyncio.get_running_loop()
        while True:
            due, data = await self._queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await proxy.wait_until_free(self._name)
            if not data:
                return
            if proxy.half_open:
                continue
            data, cut = proxy.take(self._name, self._filtered(data))
            with suppress(OSError):
                await self._send(data)
            if cut or self._writer.transport.is_closing():
                return

    async def _send(self, data: bytes) -> None:
        slices = self._proxy.slices
        if slices is None:
            self._writer.write(data)
            await self._writer.drain()
            return
        size, pause = slices
        for start in range(0, len(data), size):
            self._writer.write(data[start : start + size])
            await self._writer.drain()
            # Healed meanwhile: the rest goes at once.
            if self._proxy.slices is not None:
                await asyncio.sleep(pause)

    def _filtered(self, data: bytes) -> bytes:
        """Pass the frames of a server through the filter; its handshake goes by."""
        if self._name == _UP:
            return data
        data = self._rest + data
        self._rest = b""
        head = b""
        if not self._upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end or not head.startswith(b"HTTP/1.1 101"):
                # No WebSocket, or none yet.
                return head + end + data
            self._upgraded, head = True, head + end
        # Split always: a filter may come when half a frame has passed.
        frames, self._rest = split_frames(data)
        change = self._proxy.frames
        return head + b"".join(change(frames) if change is not None and frames else frames)
