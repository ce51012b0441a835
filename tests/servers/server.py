"""What every server of the tests can do: start, stop, be killed, come back, be frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from tests.servers.process import ServerProcess


class Server(ABC):
    """A server that a test starts, and that ends with it. A context manager: it runs inside."""

    #: Its process; None before the first start where that makes the command.
    process: ServerProcess | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it; it serves when this returns.

        Raises:
            ServerError: it did not start in time.
        """

    def stop(self) -> None:
        """End it cleanly, or by force if that takes over 20 s."""
        if self.process is not None:
            self.process.stop()

    def kill(self) -> None:
        """End it with `kill -9`."""
        if self.process is not None:
            self.process.kill()

    def restart(self) -> None:
        """End it cleanly if it runs, and start it on the same ports and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it."""
        if self.process is not None:
            self.process.pause()

    def resume(self) -> None:
        """Let it go on."""
        if self.process is not None:
            self.process.resume()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
