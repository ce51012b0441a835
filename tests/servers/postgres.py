"""A real PostgreSQL for tests: a cluster of its own, on a free port."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from tests.servers.ports import free_ports
from tests.servers.process import ServerError, ServerProcess
from tests.servers.server import Server

#: Where Debian keeps what it puts behind wrappers, the newest version first.
_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
#: PostgreSQL refuses to run as root; Debian's package makes this user.
_USER = "postgres"

_CONFIG = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
}


def _program(name: str) -> str | None:
    for folder in _DEBIAN:
        if (folder / name).exists():
            return str(folder / name)
    return shutil.which(name)


def missing_reason() -> str | None:
    """Why this machine cannot run PostgreSQL, with what to do about it; None when it can."""
    if _program("initdb") is None or _program("postgres") is None:
        return "initdb and postgres not found; install with: apt-get install postgresql"
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            return "setpriv not found on PATH; install with: apt-get install util-linux"
        try:
            pwd.getpwnam(_USER)
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user postgres"
    return None


def _watch_children(pid: int | None) -> Iterator[IO[bytes]]:
    """For each child of a process: a file that is readable when it has ended."""
    if pid is None:
        return
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(ProcessLookupError):
            yield os.fdopen(os.pidfd_open(int(child)), "rb", buffering=0)


class PostgresServer(Server):
    """A cluster with one database, `shop`. Its folder goes with it when the `with` block ends.

    Args:
        port: a fixed port instead of a free one.
        config: more settings, as in postgresql.conf, by name.
    """

    database = "shop"

    def __init__(self, *, port: int | None = None, config: Mapping[str, str] | None = None) -> None:
        self.port = port if port is not None else free_ports(1)[0]
        # pytest's folders are closed to other users, and as root the server is another user.
        self.data_dir = Path(tempfile.mkdtemp(prefix="stargate-postgres-"))
        self.log_path = self.data_dir / "postgres.log"
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self.data_dir, _USER, _USER)
            self._as_user = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--init-groups"]
        command = [*self._as_user, _program("postgres") or "postgres", "-D", str(self._cluster)]
        for name, value in {**_CONFIG, "port": str(self.port), **(config or {})}.items():
            command += ["-c", f"{name}={value}"]
        self.process: ServerProcess = ServerProcess(
            "postgres", command, log_path=self.log_path, cwd=self.data_dir
        )

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    @property
    def django(self) -> dict[str, Any]:
        """The database as Django's settings have it."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": self.database,
            "USER": _USER,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            # A worker makes a connection for each task otherwise.
            "CONN_MAX_AGE": 600,
            "CONN_HEALTH_CHECKS": True,
        }

    def start(self) -> None:
        """Start it; it takes connections when this returns.

        Raises:
            ServerError: the cluster was not made, or did not start in 60 s.
        """
        new = not self._cluster.exists()
        if new:
            self._run("initdb", "-U", _USER, "-A", "trust", "--no-sync", "-D", str(self._cluster))
        self.process.start(self._ready, timeout=60)
        if new:
            address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", _USER]
            self._run("createdb", *address, self.database)

    def kill(self) -> None:
        """End it with `kill -9`, and wait until all its processes have ended.

        They have sessions of their own, and end by themselves a moment later. Until then it does
        not start again.

        Raises:
            ServerError: one of them did not end in 20 s.
        """
        # A frozen one makes no more of them.
        self.pause()
        with ExitStack() as watched:
            watches = [watched.enter_context(watch) for watch in _watch_children(self.process.pid)]
            super().kill()
            for watch in watches:
                if not select.select([watch], [], [], 20)[0]:
                    raise ServerError(
                        f"a process of postgres did not end:\n{self.process.log_tail()}"
                    )

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as_user, _program(name) or name, *arguments],
            cwd=self.data_dir,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"{name} failed:\n{done.stdout}{done.stderr}")

    def _ready(self) -> bool:
        """Whether it answers a start-up packet with a request for a password, or with "come in"."""
        body = struct.pack("!i", 196608) + f"user\0{_USER}\0database\0postgres\0\0".encode()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(struct.pack("!i", len(body) + 4) + body)
                return sock.recv(1) == b"R"
        except OSError:
            return False
