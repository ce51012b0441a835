"""Redis behind Sentinel for tests: one master, its replicas, and the sentinels that watch them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self
from urllib.parse import quote

import redis
from redis.exceptions import RedisError

from tests.servers.ports import free_ports
from tests.servers.process import ServerError, ServerProcess
from tests.servers.redis import RedisServer
from tests.servers.redis import missing_reason as redis_missing_reason

#: The name by which the sentinels know the master.
MASTER_NAME = "lanes"

#: How long replicas and sentinels have to find one another, and a failover to end, in seconds.
_TIMEOUT = 60.0
#: After how many seconds without an answer a server is down while all of them start. On a busy
#: machine a master can be slow to answer, and a failover now would leave no known master.
_DOWN_AFTER_AT_START = 300


def missing_reason() -> str | None:
    """Why this machine cannot run Sentinel, with what to do about it; None when it can."""
    if shutil.which("redis-sentinel") is None:
        return "redis-sentinel not found on PATH; install with: apt-get install redis-sentinel"
    return redis_missing_reason()


class SentinelServers:
    """A master, replicas and sentinels, each a process of its own. A context manager.

    Arguments:
        data_dir: where they write.
        replicas: how many replicas follow the master.
        sentinels: how many sentinels watch it; the quorum is more than half.
        down_after: seconds without an answer after which a sentinel holds the master for down, once
            all have started.
        config: more directives for the data servers, by name.
        password: what the data servers ask for; none by default.
        sentinel_password: what the sentinels ask for; none by default.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        down_after: float = 1.0,
        config: Mapping[str, str] | None = None,
        password: str | None = None,
        sentinel_password: str | None = None,
    ) -> None:
        directives = dict(config or {})
        if password is not None:
            directives |= {"requirepass": password, "masterauth": password}
        self.password = password
        self.sentinel_password = sentinel_password
        self.servers = [
            RedisServer(data_dir / f"redis-{number}", appendonly=True, config=directives)
            for number in range(1 + replicas)
        ]
        self.sentinel_ports = free_ports(sentinels)
        self._data_dir = data_dir
        self._down_after_ms = round(down_after * 1000)
        self._sentinels: list[ServerProcess] = []
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """The URL in Celery's form: every sentinel, separated by semicolons."""
        user = "" if self.password is None else f":{quote(self.password, safe='')}@"
        return ";".join(f"sentinel://{user}127.0.0.1:{port}/0" for port in self.sentinel_ports)

    @property
    def master(self) -> RedisServer:
        """The server that the sentinels name as the master now.

        Raises:
            ServerError: no sentinel answers.
        """
        for port in self.sentinel_ports:
            try:
                with self._sentinel_client(port) as client:
                    address = client.execute_command(
                        "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME
                    )
            except RedisError:
                continue
            for server in self.servers:
                if address and server.port == int(address[1]):
                    return server
        raise ServerError("no sentinel names a master")

    def start(self) -> None:
        """Start all of them; the replicas are in step when this returns.

        Raises:
            ServerError: one did not start, or they did not find one another.
        """
        master, *replicas = self.servers
        for server in self.servers:
            server.start()
            self._running.callback(server.kill)
        for server in replicas:
            with self._data_client(server) as client:
                client.replicaof("127.0.0.1", str(master.port))
        for number, port in enumerate(self.sentinel_ports):
            self._start_sentinel(number, port)
        self._wait("replicas and sentinels to find one another", self._complete)
        for port in self.sentinel_ports:
            with self._sentinel_client(port) as client:
                client.execute_command(
                    *("SENTINEL", "SET", MASTER_NAME),
                    *("down-after-milliseconds", self._down_after_ms),
                )

    def failover(self) -> RedisServer:
        """Wait until the sentinels have another master than now; return it.

        The present master must be down, or cut off, already.

        Raises:
            ServerError: no failover came in time.
        """
        before = self.master
        self._wait("a failover", lambda: self.master is not before)
        return self.master

    def isolate(self, server: RedisServer, *, user: str, password: str) -> None:
        """Cut a server off from its sentinels and the other servers; one user still reaches it.

        Its default user, as whom they come, gets another password.

        Arguments:
            server: the one; all have ``password``.
            user: who still reaches it; made by :meth:`add_user`.
            password: of that user.
        """
        with redis.Redis(port=server.port, username=user, password=password) as client:
            client.execute_command("ACL", "SETUSER", "default", "resetpass", ">unknown")
            client.execute_command("CLIENT", "KILL", "USER", "default")

    def kill_sentinel(self, number: int) -> None:
        """Kill one of the sentinels."""
        self._sentinels[number].kill()

    def add_user(self, user: str, password: str, *rules: str) -> None:
        """Make an ACL user on all data servers."""
        for server in self.servers:
            with self._data_client(server) as client:
                client.execute_command("ACL", "SETUSER", user, "on", f">{password}", *rules)

    def stop(self) -> None:
        """End all of them."""
        self._running.close()
        self._sentinels.clear()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _start_sentinel(self, number: int, port: int) -> None:
        folder = self._data_dir / f"sentinel-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        quorum = len(self.sentinel_ports) // 2 + 1
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor {MASTER_NAME} 127.0.0.1 {self.servers[0].port} {quorum}",
            f"sentinel down-after-milliseconds {MASTER_NAME} {_DOWN_AFTER_AT_START * 1000}",
            f"sentinel failover-timeout {MASTER_NAME} 10000",
            f"sentinel parallel-syncs {MASTER_NAME} 2",
        ]
        if self.password is not None:
            lines.append(f"sentinel auth-pass {MASTER_NAME} {self.password}")
        if self.sentinel_password is not None:
            lines.append(f"requirepass {self.sentinel_password}")
            lines.append(f"sentinel sentinel-pass {self.sentinel_password}")
        # A sentinel rewrites its file.
        path = folder / "sentinel.conf"
        path.write_text("\n".join(lines) + "\n", "utf-8")
        process = ServerProcess(
            f"sentinel {number}",
            ["redis-sentinel", str(path)],
            log_path=folder / "sentinel.log",
        )
        self._running.callback(process.kill)
        process.start(lambda: self._answers(port, process), timeout=20)
        self._sentinels.append(process)

    def _answers(self, port: int, process: ServerProcess) -> bool:
        """Whether it answers: this process, and not another that has its port."""
        try:
            with self._sentinel_client(port) as client:
                return bool(client.info("server")["process_id"] == process.pid)
        except RedisError:
            return False

    def _complete(self) -> bool:
        for process in (*self._sentinels, *(server.process for server in self.servers)):
            process.require_alive()
        replicas = len(self.servers) - 1
        others = len(self.sentinel_ports) - 1
        try:
            for port in self.sentinel_ports:
                with self._sentinel_client(port) as client:
                    # redis-py 6 fails in its own method for this command.
                    reply = client.execute_command("SENTINEL", "MASTER", MASTER_NAME)
                if not isinstance(reply, dict):
                    reply = dict(zip(reply[::2], reply[1::2], strict=True))
                known = int(reply["num-slaves"]), int(reply["num-other-sentinels"])
                if known[0] < replicas or known[1] < others:
                    return False
            with self._data_client(self.servers[0]) as client:
                return bool(client.info("replication")["connected_slaves"] >= replicas)
        except (RedisError, KeyError):
            return False

    def _sentinel_client(self, port: int) -> redis.Redis:
        return redis.Redis(
            port=port, password=self.sentinel_password, socket_timeout=2.0, decode_responses=True
        )

    def _data_client(self, server: RedisServer) -> redis.Redis:
        return redis.Redis(port=server.port, password=self.password, socket_timeout=2.0)

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _TIMEOUT
        while not ready():
            if time.monotonic() > end:
                logs = [f"{each.name}:\n{each.log_tail(1000)}" for each in self._sentinels]
                raise ServerError("\n".join([f"waited {_TIMEOUT:g} s for {what}", *logs]))
            time.sleep(0.1)
