"""One server process of a test: started, watched, frozen, killed, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: Where a server that must be found from one process after another keeps its files.
CACHE_VARIABLE = "STARGATE_TEST_CACHE"


class ServerError(RuntimeError):
    """A server did not start, or died on the way; the end of its log is in the text."""


def cache_folder() -> Path:
    """The folder that outlives test runs: `STARGATE_TEST_CACHE`, or below the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "celery-stargate"


def listening(port: int) -> bool:
    """Whether something accepts connections on that port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5):
            return True
    except OSError:
        return False


class ServerProcess:
    """A command in a session (and so a process group) of its own, that dies with this process.

    The child is watched by a tiny guard that waits for the end of a pipe which only this process
    holds: however this process ends, `kill -9` included, the guard then kills the child's group.
    (`PR_SET_PDEATHSIG` would be shorter, but it follows the *thread* that started the child, and
    tests restart servers from threads.)

    Args:
        name: for messages.
        command: program and arguments.
        log_path: gets stdout and stderr, appended, so that a restart keeps the history.
        env: the whole environment of the child; that of this process by default.
        cwd: its working directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_path = log_path
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._child: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, which is that of its group too; None when it does not run."""
        return self._child.pid if self.alive and self._child else None

    @property
    def alive(self) -> bool:
        """Whether the process exists (a frozen one does)."""
        return self._child is not None and self._child.poll() is None

    def require_alive(self) -> None:
        """Raise :class:`ServerError` with the end of its log if the process has ended."""
        if not self.alive:
            raise ServerError(f"{self.name} has ended:\n{self.log_tail()}")

    def start(self, ready: Callable[[], bool], *, timeout: float) -> None:
        """Start it and wait until `ready()` is true.

        Raises:
            ServerError: it ended by itself, or was not ready in `timeout` seconds. It is stopped.
        """
        if self.alive:
            raise ServerError(f"{self.name} runs already")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -9 "-$1"', "guard", str(self._child.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + timeout
        try:
            while not ready():
                self.require_alive()
                if time.monotonic() > end:
                    raise ServerError(
                        f"{self.name} was not ready in {timeout:g} s:\n{self.log_tail()}"
                    )
                time.sleep(0.05)
        except BaseException:
            self.kill()
            raise

    def stop(self, *, timeout: float = 20.0) -> None:
        """Ask it to end (SIGTERM), then kill what is left of its group. Harmless when it is not
        running."""
        child = self._child
        if child is None:
            return
        if self.alive:
            self.resume()
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End its whole group with `kill -9`, at once. Harmless when it is not running."""
        child, self._child = self._child, None
        guard, self._guard = self._guard, None
        if guard is not None:
            # Before the child is reaped: afterwards its number may belong to somebody else.
            guard.kill()
            guard.wait()
            if guard.stdin is not None:
                guard.stdin.close()
        if child is not None:
            self._signal_group(child.pid, signal.SIGKILL)
            child.wait()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): its sockets stay open and nobody answers."""
        if self._child is not None:
            self._signal_group(self._child.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self._child is not None:
            self._signal_group(self._child.pid, signal.SIGCONT)

    def log_tail(self, size: int = 4000) -> str:
        """The end of its log, for messages."""
        try:
            return self.log_path.read_bytes()[-size:].decode(errors="replace")
        except OSError:
            return "(no log)"

    @staticmethod
    def _signal_group(group: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(group, number)
