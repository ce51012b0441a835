"""Child processes that never outlive the demo, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

#: The folder from which ``examples`` can be imported.
ROOT = Path(__file__).resolve().parents[2]


class DemoError(RuntimeError):
    """The demo cannot go on; the text says why."""


class Child:
    """A process in its own group, so that Ctrl-C reaches only the demo."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._popen = popen
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its group."""
        return self._popen.pid

    def require_alive(self) -> None:
        """Check that it runs.

        Raises:
            DemoError: it ended; the text holds the end of its log.
        """
        if self._popen.poll() is not None:
            tail = self._log.read_text(errors="replace")[-3000:]
            raise DemoError(f"{self.name} ended unexpectedly:\n{tail}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def first_line(self, timeout: float) -> str:
        """Wait for the first line of its log.

        Raises:
            DemoError: there is none within ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            line, newline, _ = self._log.read_text(errors="replace").partition("\n")
            if newline:
                return line.strip()
            self.require_alive()
            time.sleep(0.02)
        raise DemoError(f"{self.name} said nothing in {timeout:g} s")

    def end(self, timeout: float = 8.0) -> None:
        """Terminate it, and kill it if that does not help. Does nothing if it has ended."""
        self.signal(signal.SIGTERM)
        self._wait(timeout)
        self.signal(signal.SIGKILL)
        self._wait(5.0)

    def _wait(self, timeout: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout)


class Processes:
    """All children of the demo; a context manager that ends them.

    If the demo itself is killed with -9, a small guard process sees its pipe close and kills them.

    Args:
        folder: for their logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'while read -r g; do all="$all -$g"; done; kill -9 $all'],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Child:
        """Start a command with its own log file."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=ROOT,
                start_new_session=True,
            )
        child = Child(name, popen, log)
        self._children.append(child)
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{popen.pid}\n".encode())
        self._guard.stdin.flush()
        return child

    def python(
        self, name: str, module: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> Child:
        """Start a Python module with this interpreter."""
        return self.start(name, [sys.executable, "-u", "-m", module, *arguments], env)

    def end(self, *names: str) -> None:
        """End the children with these names, if they were started."""
        for name in names:
            for child in self._children:
                if child.name == name:
                    child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # In reverse order, so that workers stop while their servers still run.
        for child in reversed(self._children):
            child.end()
        self._guard.kill()
        self._guard.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
