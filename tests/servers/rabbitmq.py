"""A real RabbitMQ node for tests."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from tests.servers.ports import free_ports
from tests.servers.process import ServerProcess, listening
from tests.servers.server import Server

#: Where Debian keeps the start script itself; the one on PATH changes to the user `rabbitmq`,
#: who could not write into the folder of a test.
_PLAIN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")


def _script() -> str | None:
    plain = _PLAIN_SCRIPTS / "rabbitmq-server"
    return str(plain) if plain.exists() else shutil.which("rabbitmq-server")


def missing_reason() -> str | None:
    """Why this machine cannot run RabbitMQ, with what to do about it; None when it can."""
    if _script() is None:
        return "rabbitmq-server not found; install with: apt-get install rabbitmq-server"
    if shutil.which("epmd") is None:
        return "epmd (Erlang) not found on PATH; install with: apt-get install erlang-base"
    return None


class RabbitServer(Server):
    """A RabbitMQ node with a name, ports, folders, cookie and `epmd` of its own.

    Args:
        data_dir: everything it writes goes below, made when missing.
        port: a fixed AMQP port instead of a free one.
    """

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        self.data_dir = data_dir
        amqp, self._dist_port, self._epmd_port = free_ports(3)
        self.port = port if port is not None else amqp
        self.log_path = data_dir / "rabbitmq.log"
        script = _script() or "rabbitmq-server"
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(data_dir),  # the cookie of this node lands here, not in the user's home
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"stargate-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(data_dir / "mnesia"),
            "RABBITMQ_LOG_BASE": str(data_dir / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": str(data_dir / "no-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(data_dir / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(data_dir / "advanced"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(data_dir / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false +sbwt none",
        }
        # epmd is a child of ours: the node would start one as a daemon that nobody ends.
        self._epmd = ServerProcess(
            "epmd",
            ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"],
            log_path=data_dir / "epmd.log",
            env=env,
        )
        self.process: ServerProcess = ServerProcess(
            "rabbitmq-server", [script], log_path=self.log_path, env=env
        )

    @property
    def url(self) -> str:
        """The AMQP URL of its virtual host `/`."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Start it; it speaks AMQP when this returns.

        Raises:
            ServerError: it did not start in 60 s.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "enabled_plugins").write_text("[].\n")
        (self.data_dir / "rabbitmq.conf").write_text(
            # A test machine may be short of disk; a blocked publisher would look like a bug.
            "disk_free_limit.absolute = 10MB\nloopback_users = none\n"
        )
        if not self._epmd.alive:
            self._epmd.start(lambda: listening(self._epmd_port), timeout=10)
        try:
            self.process.start(self._ready, timeout=60)
        except BaseException:
            self._epmd.kill()
            raise

    def stop(self) -> None:
        """End it cleanly, and its epmd."""
        self.process.stop(timeout=30)
        self._epmd.stop()

    def kill(self) -> None:
        """End the node with `kill -9`, and its epmd."""
        self.process.kill()
        self._epmd.kill()

    def _ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as sock:
                sock.settimeout(5)
                sock.sendall(b"AMQP\x00\x00\x09\x01")
                return sock.recv(1) == b"\x01"  # a method frame: connection.start
        except OSError:
            return False
