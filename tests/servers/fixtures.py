"""pytest fixtures: one real server of each kind for a test session.

Use them with `pytest_plugins = ["tests.servers.fixtures"]` in the top conftest. A server that
this machine cannot run skips its tests, and fails them where `CI` is set. Servers that run already
are used instead when `STARGATE_TEST_PULSAR_URL` (with `STARGATE_TEST_PULSAR_HTTP_URL` and
`STARGATE_TEST_PULSAR_SERVICE_URL`), `STARGATE_TEST_REDIS_URL`, `STARGATE_TEST_AMQP_URL` name them:
`python -m tests.servers` starts such servers.

A test that kills or freezes a server must start one of its own.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.servers import pulsar as pulsar_module
from tests.servers import rabbitmq as rabbitmq_module
from tests.servers import redis as redis_module
from tests.servers.admin import PulsarAdmin

#: How long the worker process that started a shared server waits for the others to be done.
_LAST_USER_TIMEOUT = 900.0


@dataclass(frozen=True)
class PulsarAddress:
    """Where a broker is: WebSocket base, admin base, and what native clients connect to."""

    url: str
    http_url: str
    service_url: str

    @property
    def admin(self) -> PulsarAdmin:
        """An admin client for it."""
        return PulsarAdmin(self.http_url)


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is."""

    url: str


def require(reason: str | None) -> None:
    """Skip the test when there is a reason; fail it on CI, where nothing may be missing."""
    if reason is None:
        return
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def worker_number() -> int | None:
    """The number of this pytest-xdist worker; None without xdist."""
    found = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
    return int(found.group(1)) if found else None


@contextmanager
def _shared(
    name: str,
    factory: pytest.TempPathFactory,
    start: Callable[[Path], AbstractContextManager[dict[str, str]]],
) -> Iterator[dict[str, str]]:
    """One server for all xdist workers: the first that comes starts it, and stops it when all the
    others are done."""
    if worker_number() is None:
        with start(factory.mktemp(name)) as address:
            yield address
        return
    folder = factory.getbasetemp().parent / f"shared-{name}"
    users = folder / "users"
    users.mkdir(parents=True, exist_ok=True)
    mine = users / str(os.getpid())
    state = folder / "address.json"
    owned: AbstractContextManager[dict[str, str]] | None = None
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not state.exists():
            owned = start(folder / "data")
            state.write_text(json.dumps(owned.__enter__()))
        mine.touch()
    try:
        yield json.loads(state.read_text())
    finally:
        mine.unlink()
        if owned is not None:
            end = time.monotonic() + _LAST_USER_TIMEOUT
            while not _retired(folder, forced=time.monotonic() > end):
                time.sleep(0.1)
            owned.__exit__(None, None, None)


def _retired(folder: Path, *, forced: bool) -> bool:
    """Whether nobody uses a shared server; if so, nobody finds its address any more."""
    # With the lock: a worker that comes just now either counts, or starts a server of its own.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not forced and any(_alive(user) for user in (folder / "users").iterdir()):
            return False
        (folder / "address.json").unlink()
        return True


def _alive(user: Path) -> bool:
    try:
        os.kill(int(user.name), 0)
    except ProcessLookupError:
        return False
    return user.exists()


@contextmanager
def _start_pulsar(folder: Path) -> Iterator[dict[str, str]]:
    server = pulsar_module.PulsarServer(folder)
    server.start()
    try:
        yield asdict(PulsarAddress(server.url, server.http_url, server.service_url))
    finally:
        # Nobody needs its data any more, and a clean stop takes it seven seconds.
        server.kill()


@contextmanager
def _start_rabbitmq(folder: Path) -> Iterator[dict[str, str]]:
    with rabbitmq_module.RabbitServer(folder) as server:
        yield asdict(ServerAddress(server.url))


@pytest.fixture(scope="session")
def pulsar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulsarAddress]:
    """A real broker, shared by the whole session: use topics of your own."""
    url = os.environ.get("STARGATE_TEST_PULSAR_URL")
    if url:
        http_url = os.environ.get("STARGATE_TEST_PULSAR_HTTP_URL", url.replace("ws", "http", 1))
        yield PulsarAddress(url, http_url, os.environ.get("STARGATE_TEST_PULSAR_SERVICE_URL", ""))
        return
    require(pulsar_module.missing_reason())
    with _shared("pulsar", tmp_path_factory, _start_pulsar) as address:
        yield PulsarAddress(**address)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    """A real Redis for this process (each xdist worker has its own): it may be flushed."""
    url = os.environ.get("STARGATE_TEST_REDIS_URL")
    if url:
        number = worker_number()
        # One server, but a database for each worker.
        if number is not None:
            url = urlunsplit(urlsplit(url)._replace(path=f"/{number % 16}"))
        yield ServerAddress(url)
        return
    require(redis_module.missing_reason())
    with redis_module.RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield ServerAddress(server.url)
        # Celery's results are cyclic garbage: one that is collected after the server has ended
        # tries for 20 s to unsubscribe, and fails whichever test is the last. Those of the last
        # test are still in use here.
        gc.collect()
        mock.patch("celery.backends.redis.ResultConsumer.cancel_for").start()


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    """A real RabbitMQ, shared by the whole session: use queues of your own."""
    url = os.environ.get("STARGATE_TEST_AMQP_URL")
    if url:
        yield ServerAddress(url)
        return
    require(rabbitmq_module.missing_reason())
    with _shared("rabbitmq", tmp_path_factory, _start_rabbitmq) as address:
        yield ServerAddress(**address)
