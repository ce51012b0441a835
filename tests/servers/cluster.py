"""A Redis Cluster for tests: masters with their replicas, on 127.0.0.1."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import redis
from redis.exceptions import RedisError

from tests.servers.process import ServerError, free_ports, listening
from tests.servers.redis import RedisServer
from tests.servers.redis import missing_reason as redis_missing_reason

#: How long the nodes have to agree, in seconds.
_TIMEOUT = 60.0

#: A node's bus listens this far above its port, so its port must be below 55,536.
_BUS_OFFSET = 10_000


def missing_reason() -> str | None:
    """Why this machine cannot run a Cluster, with what to do about it; None when it can."""
    if shutil.which("redis-cli") is None:
        return "redis-cli not found on PATH; install with: apt-get install redis-tools"
    return redis_missing_reason()


class ClusterServers:
    """A Redis Cluster, each node a process of its own. A context manager.

    Arguments:
        data_dir: where the nodes write.
        masters: how many masters share the slots.
        replicas: how many replicas each master has.
        config: more directives, by name.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        masters: int = 3,
        replicas: int = 1,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._replicas = replicas
        directives = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": "2000",
            "cluster-config-file": "nodes.conf",
            # A shard that is down must not stop the others.
            "cluster-require-full-coverage": "no",
            **(config or {}),
        }
        self.nodes = [
            RedisServer(data_dir / f"node-{port}", port=port, appendonly=True, config=directives)
            for port in _ports_with_bus(masters * (1 + replicas))
        ]

    @property
    def url(self) -> str:
        """The URL that names every node."""
        return "rediscluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """Start the nodes and make the Cluster of them.

        Raises:
            ServerError: a node did not start, or they did not agree in time.
        """
        for node in self.nodes:
            node.start()
        made = subprocess.run(
            [
                "redis-cli",
                "--cluster",
                "create",
                *(f"127.0.0.1:{node.port}" for node in self.nodes),
                "--cluster-replicas",
                str(self._replicas),
                "--cluster-yes",
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
        if made.returncode:
            raise ServerError(f"redis-cli made no cluster:\n{made.stdout}\n{made.stderr}")
        self._wait("the cluster to agree", lambda: all(map(self._sound, self.nodes)))

    def master_of(self, key: str) -> RedisServer:
        """Return the node that serves a key's slot now.

        Raises:
            ServerError: no node answers.
        """
        for node in self.nodes:
            try:
                with redis.Redis(port=node.port, socket_timeout=2.0, decode_responses=True) as one:
                    slot = int(one.execute_command("CLUSTER", "KEYSLOT", key))
                    for first, last, (_, port, *_), *_ in one.execute_command("CLUSTER", "SLOTS"):
                        if first <= slot <= last:
                            return next(each for each in self.nodes if each.port == int(port))
            except RedisError:
                continue
        raise ServerError("no node of the cluster answers")

    def move_slot(self, key: str, to: RedisServer) -> None:
        """Move the slot of a key with all its keys to another master, step by step.

        Clients meet MOVED, ASK and TRYAGAIN meanwhile.

        Raises:
            RedisError: a node refused a step.
        """
        source = self.master_of(key)
        with (
            redis.Redis(port=source.port, decode_responses=True) as old,
            redis.Redis(port=to.port, decode_responses=True) as new,
        ):
            slot = int(old.execute_command("CLUSTER", "KEYSLOT", key))
            old_id = old.execute_command("CLUSTER", "MYID")
            new_id = new.execute_command("CLUSTER", "MYID")
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
            while keys := old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
                old.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            for each in (new, old):
                each.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_id)

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _sound(self, node: RedisServer) -> bool:
        try:
            with redis.Redis(port=node.port, socket_timeout=2.0, decode_responses=True) as client:
                state = client.execute_command("CLUSTER", "INFO")
                known = client.execute_command("CLUSTER", "NODES")
        except RedisError:
            return False
        ok = "ok" in (state if isinstance(state, str) else state.get("cluster_state", ""))
        return ok and len(known) >= len(self.nodes)

    @staticmethod
    def _wait(what: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _TIMEOUT
        while not ready():
            if time.monotonic() > end:
                raise ServerError(f"waited {_TIMEOUT:g} s for {what}")
            time.sleep(0.1)


def _ports_with_bus(count: int) -> list[int]:
    """Return free ports whose bus ports are free too."""
    found: list[int] = []
    while len(found) < count:
        (port,) = free_ports(1)
        bus = port + _BUS_OFFSET
        if bus < 65_536 and port not in found and not listening(bus):
            found.append(port)
    return found
