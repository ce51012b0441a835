"""Each port is given out once, also between the processes that run the tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import sentinel as sentinel_module
from tests.servers.fixtures import require
from tests.servers.ports import Reservations, free_ports, ports_with_bus
from tests.servers.process import ServerError
from tests.servers.redis import RedisServer
from tests.servers.sentinel import SentinelServers

#: A process that takes ports, says whether it got them, and holds them until its input ends.
_HOLDER = """
import sys
from pathlib import Path
from tests.servers.ports import Reservations
reservations = Reservations(Path(sys.argv[1]))
print(reservations.take(*map(int, sys.argv[2:])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the reservations."""
    return tmp_path / "ports"


@contextmanager
def another_process(path: Path, *ports: int) -> Iterator[bool]:
    """Let another process try to take ports; yield whether it got them; then kill it."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path), *map(str, ports)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline() == "True\n"
        process.kill()


def test_ports_of_servers_are_not_those_of_connections() -> None:
    """Or a client could take one while its server restarts, or even connect to itself."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii")
    first, last = map(int, text.split())
    ports = free_ports(50) + [each + 10_000 for each in ports_with_bus(50)]
    assert not any(first <= port <= last for port in ports)


def test_no_port_is_given_out_twice() -> None:
    """Although nothing listens on the first ones yet."""
    ports = [port for _ in range(10) for port in free_ports(100)]
    nodes = [
        each for _ in range(10) for port in ports_with_bus(30) for each in (port, port + 10_000)
    ]
    assert len({*ports, *nodes}) == len(ports) + len(nodes)


def test_a_port_of_another_process(path: Path) -> None:
    """It is free when that process has ended, however it did."""
    mine = Reservations(path)
    with another_process(path, 1, 2) as got:
        assert got
        assert not mine.take(2)
        assert mine.take(3)
    assert mine.take(2)
    with another_process(path, 2) as got:
        assert not got


def test_all_or_none(path: Path) -> None:
    mine = Reservations(path)
    with another_process(path, 2):
        assert not mine.take(1, 2)
        with another_process(path, 1) as got:
            assert got


def test_the_oldest_port_is_given_back(path: Path) -> None:
    """A process that starts thousands of servers does not use up all ports."""
    mine = Reservations(path, kept=2)
    for port in (1, 2, 3):
        assert mine.take(port, port + 10)
    with another_process(path, 1, 11) as got:
        assert got
    with another_process(path, 12) as got:
        assert not got
    assert mine.take(1, 11)


def test_a_sentinel_whose_port_another_server_has(tmp_path: Path) -> None:
    """The other server's answers are not taken for its own."""
    require(sentinel_module.missing_reason())
    with RedisServer(tmp_path / "other") as other:
        servers = SentinelServers(tmp_path / "servers")
        servers.sentinel_ports[1] = other.port
        with pytest.raises(ServerError, match="sentinel 1 has ended"), servers:
            pass
