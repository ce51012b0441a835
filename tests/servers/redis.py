"""A real `redis-server` for tests."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from tests.servers.ports import free_ports
from tests.servers.process import ServerProcess
from tests.servers.server import Server

#: What the project demands of Redis, and what its tests need; `config` overrides each.
_CONFIG = {
    "save": "",
    "appendonly": "no",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "enable-debug-command": "local",
    "protected-mode": "yes",
    "bind": "127.0.0.1",
    "daemonize": "no",
}


def missing_reason() -> str | None:
    """Why this machine cannot run Redis, with what to do about it; None when it can."""
    if shutil.which("redis-server") is None:
        return "redis-server not found on PATH; install with: apt-get install redis-server"
    return None


class RedisServer(Server):
    """A Redis of its own on a free port. By default it keeps nothing on disk.

    Args:
        data_dir: its working directory, made when missing.
        port: a fixed port instead of a free one.
        appendonly: keep the append-only file, so that data outlives `kill` and `restart`.
        config: more directives, as in redis.conf, by name.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        appendonly: bool = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.port = port if port is not None else free_ports(1)[0]
        self.log_path = data_dir / "redis.log"
        directives = {**_CONFIG, "appendonly": "yes" if appendonly else "no", **(config or {})}
        command = ["redis-server", "--port", str(self.port), "--dir", str(data_dir)]
        for name, value in directives.items():
            command += [f"--{name}", value]
        self.process: ServerProcess = ServerProcess("redis-server", command, log_path=self.log_path)

    @property
    def url(self) -> str:
        """The URL of its database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it; it answers PING when this returns.

        Raises:
            ServerError: it did not start in 20 s.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.process.start(self._ready, timeout=20)

    def _ready(self) -> bool:
        """Whether it answers: this process, and not another that has its port."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"PING\r\nINFO server\r\n")
                answers = sock.makefile("rb")
                first = answers.readline()
                # One with a password wants it first, and says nothing of itself.
                if first.startswith(b"-NOAUTH"):
                    return True
                # While it still loads its file the answer is -LOADING.
                if not first.startswith(b"+PONG"):
                    return False
                size = int(answers.readline()[1:])
                return b"\nprocess_id:%d\r" % (self.process.pid or 0) in answers.read(size)
        except (OSError, ValueError):
            return False
