"""The stand-in's thread: an event loop that owns all state of the stand-in."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from celery_stargate.testing.local_pulsar.connection import Connection
from celery_stargate.testing.local_pulsar.service import Service

T = TypeVar("T")

_START_TIMEOUT = 10.0
#: How long the TLS handshakes under way may take when it stops, in seconds.
_ACCEPT_TIMEOUT = 1.0


class LoopThread:
    """Serves a host in a thread of its own.

    Args:
        service: what the connections ask.
        ssl_context: serve TLS.
    """

    def __init__(self, service: Service, ssl_context: ssl.SSLContext | None) -> None:
        self._service = service
        self._ssl_context = ssl_context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: asyncio.Event | None = None

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._thread is not None

    def start(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises:
            OSError: the port cannot be used.
            RuntimeError: it already listens.
        """
        if self._thread is not None:
            raise RuntimeError("this LocalPulsar is already running")
        started: Future[int] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(host, port, started)),
            name="LocalPulsar",
            daemon=True,
        )
        self._thread.start()
        try:
            return started.result(_START_TIMEOUT)
        except BaseException:
            self._thread = None
            raise

    def stop(self) -> None:
        """Drop every socket and stop listening. It does nothing if it does not run."""
        thread, self._thread = self._thread, None
        loop, end = self._loop, self._end
        if thread is None or loop is None or end is None:
            return
        loop.call_soon_threadsafe(end.set)
        thread.join(_START_TIMEOUT)

    def do(self, work: Callable[[], T]) -> T:
        """Run a function in the thread, and return its result."""
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

    async def _serve(self, host: str, port: int, started: Future[int]) -> None:
        loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        try:
            server = await loop.create_server(
                lambda: Connection(self._service), host, port, ssl=self._ssl_context
            )
        except OSError as error:
            started.set_exception(error)
            return
        self._loop = loop
        started.set_result(server.sockets[0].getsockname()[1])
        try:
            await self._end.wait()
        finally:
            self._loop = None
            # Accept no more connections, and let the TLS handshakes under way end: a client whose
            # connection was just accepted would otherwise wait for an answer.
            for listener in server.sockets:
                loop.remove_reader(listener.fileno())
            accepting = asyncio.all_tasks() - {asyncio.current_task()}
            if accepting:
                await asyncio.wait(accepting, timeout=_ACCEPT_TIMEOUT)
            server.close()
            for connection in tuple(self._service.connections):
                connection.close(None)
            # The transports report the loss in the next round of the loop.
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
