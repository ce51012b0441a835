"""A Redis Cluster for tests: masters with their replicas, on 127.0.0.1."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.servers.ports import ports_with_bus
from tests.servers.process import ServerError
from tests.servers.redis import RedisServer
from tests.servers.redis import missing_reason as redis_missing_reason

#: How long the nodes have to agree, in seconds.
_TIMEOUT = 60.0

#: redis-cli makes no cluster of fewer masters.
_FEWEST_OF_REDIS_CLI = 3


def missing_reason() -> str | None:
    """Why this machine cannot run a Cluster, with what to do about it; None when it can."""
    if shutil.which("redis-cli") is None:
        return "redis-cli not found on PATH; install with: apt-get install redis-tools"
    return redis_missing_reason()


class ClusterServers:
    """A Redis Cluster, each node a process of its own. A context manager.

    Arguments:
        data_dir: where the nodes write.
        masters: how many masters share the slots; fewer than three have no replicas.
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
        self._data_dir = data_dir
        directives = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": "2000",
            "cluster-config-file": "nodes.conf",
            # A shard that is down must not stop the others.
            "cluster-require-full-coverage": "no",
            # Replicas are in step at once, and not after 5 s.
            "repl-diskless-sync-delay": "0",
            **(config or {}),
        }
        self._directives = directives
        self.nodes = [self._node(port) for port in ports_with_bus(masters * (1 + replicas))]

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
        if len(self.nodes) < _FEWEST_OF_REDIS_CLI:
            self._join()
        else:
            self._create()
        self._wait(
            "the cluster to agree, and replicas to be in step",
            lambda: all(map(self._sound, self.nodes)),
        )

    def _create(self) -> None:
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

    def _join(self) -> None:
        """Share the slots by hand."""
        size = 16384 // len(self.nodes)
        for number, node in enumerate(self.nodes):
            last = number == len(self.nodes) - 1
            with redis.Redis(port=node.port) as client:
                client.execute_command(
                    *("CLUSTER", "ADDSLOTSRANGE", number * size),
                    16383 if last else (number + 1) * size - 1,
                )
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)

    def masters(self) -> list[RedisServer]:
        """Return the nodes that serve slots now.

        Raises:
            ServerError: no node answers.
        """
        return list({node.port: node for _, _, node in self._slots()}.values())

    def add_master(self) -> RedisServer:
        """Start one more node without slots, and return it when all know it.

        Raises:
            ServerError: it did not start, or they did not agree in time.
        """
        node = self._node(*ports_with_bus(1))
        node.start()
        with redis.Redis(port=self.nodes[0].port) as known:
            known.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        self.nodes.append(node)
        self._wait("the new node to be known", lambda: all(map(self._sound, self.nodes)))
        return node

    def master_of(self, key: str) -> RedisServer:
        """Return the node that serves a key's slot now.

        Raises:
            ServerError: no node answers.
        """
        slot = key_slot(key.encode())
        for first, last, node in self._slots():
            if first <= slot <= last:
                return node
        raise ServerError(f"no node of the cluster serves slot {slot}")

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

    def _node(self, port: int) -> RedisServer:
        return RedisServer(
            self._data_dir / f"node-{port}", port=port, appendonly=True, config=self._directives
        )

    def _slots(self) -> list[tuple[int, int, RedisServer]]:
        """Return the ranges of slots, each with the node that serves it."""
        nodes = {node.port: node for node in self.nodes}
        for node in self.nodes:
            try:
                with redis.Redis(port=node.port, socket_timeout=2.0, decode_responses=True) as one:
                    found = one.execute_command("CLUSTER", "SLOTS")
            except RedisError:
                continue
            return [(first, last, nodes[int(port)]) for first, last, (_, port, *_), *_ in found]
        raise ServerError("no node of the cluster answers")

    def _sound(self, node: RedisServer) -> bool:
        try:
            with redis.Redis(port=node.port, socket_timeout=2.0, decode_responses=True) as client:
                state = client.execute_command("CLUSTER", "INFO")
                known = client.execute_command("CLUSTER", "NODES")
                link = client.info("replication").get("master_link_status", "up")
        except RedisError:
            return False
        told = state if isinstance(state, str) else f"cluster_state:{state['cluster_state']}"
        return "cluster_state:ok" in told and len(known) >= len(self.nodes) and link == "up"

    @staticmethod
    def _wait(what: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _TIMEOUT
        while not ready():
            if time.monotonic() > end:
                raise ServerError(f"waited {_TIMEOUT:g} s for {what}")
            time.sleep(0.1)
