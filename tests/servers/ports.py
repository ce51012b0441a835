"""Ports of 127.0.0.1 for the servers of tests: no two servers of one user get the same one."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.servers.process import ServerError

#: Where servers listen: below what Linux gives to outgoing connections (32768 and up).
_PORTS = range(20_000, 32_000)
#: The bus of a Cluster's node listens this far above the node's port.
_BUS_OFFSET = 10_000
#: Where nodes listen: their buses are below the ports of outgoing connections, too.
_NODE_PORTS = range(11_000, 20_000)
#: How many servers' ports a process keeps: more than it has servers at any time.
_KEPT = 3000


class Reservations:
    """Ports that this process has, of those that all processes of this user choose from.

    A port that was found free is free until its server listens, and again while that server is
    down. So that nobody else gets it meanwhile, a process locks one byte of a file for each port.
    The kernel takes the locks back when the process ends, however that happens.

    Arguments:
        path: the file, the same for all processes.
        kept: of how many calls it keeps the ports; then it gives back the oldest.
    """

    def __init__(self, path: Path, *, kept: int = _KEPT) -> None:
        self._path = path
        self._kept = kept
        self._file: int | None = None
        #: The ports of each call.
        self._taken: deque[tuple[int, ...]] = deque()
        self._lock = threading.Lock()

    def take(self, *ports: int) -> bool:
        """Take all of these ports; return False, and take none, if somebody has one of them."""
        with self._lock:
            # Locks of the same process do not keep one another out.
            if any(port in taken for taken in self._taken for port in ports):
                return False
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            locked: list[int] = []
            try:
                for port in ports:
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
                    locked.append(port)
            except OSError:
                for port in locked:
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, port)
                return False
            self._taken.append(ports)
            if len(self._taken) > self._kept:
                for port in self._taken.popleft():
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, port)
            return True


_reservations = Reservations(Path(tempfile.gettempdir()) / f"stargate-ports-{os.getuid()}")


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 on which nothing listens, and that no other server will get.

    The kernel takes the ports of outgoing connections, and those of `bind` to port 0, from another
    range. A port of that range may be gone when its server restarts, and a client that tries it
    meanwhile may even connect to itself.

    Raises:
        ServerError: there are not so many.
    """
    return _find(count, _PORTS, (0,))


def ports_with_bus(count: int) -> list[int]:
    """Do as :func:`free_ports` for nodes of a Cluster: the ports of their buses are free, too.

    Raises:
        ServerError: there are not so many.
    """
    return _find(count, _NODE_PORTS, (0, _BUS_OFFSET))


def _find(count: int, ports: range, offsets: Sequence[int]) -> list[int]:
    found: list[int] = []
    for port in random.SystemRandom().sample(ports, len(ports)):
        if len(found) == count:
            return found
        needed = [port + offset for offset in offsets]
        if _nothing_listens(needed) and _reservations.take(*needed):
            found.append(port)
    raise ServerError(f"fewer than {count} ports are free from {ports[0]} to {ports[-1]}")


def _nothing_listens(ports: Sequence[int]) -> bool:
    with ExitStack() as held, suppress(OSError):
        for port in ports:
            sock = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            sock.bind(("127.0.0.1", port))
        return True
    return False
