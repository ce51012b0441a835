"""Find or start Redis, Pulsar and the two workers."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import redis

from .processes import Child, DemoError, Processes


@dataclass(frozen=True)
class Place:
    """Where a server is, and a description of it."""

    url: str
    what: str


def find_redis(processes: Processes, folder: Path, *, embedded: bool) -> Place:
    """Use ``REDIS_URL`` (with ``STARGATE_URL``), ``redis-server``, or an embedded Redis."""
    url = os.environ.get("REDIS_URL")
    if url and os.environ.get("STARGATE_URL") and not embedded:
        return Place(url, f"Redis {_version(url)} at {_address(url)}")
    if embedded or shutil.which("redis-server") is None:
        child = processes.python("embedded-redis", "celery_stargate.testing.fake_redis")
        url = child.first_line(20)
        return Place(url, "fakeredis, embedded: in memory, and slow")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", str(folder)]
    child = processes.start("redis-server", [*command, "--save", "", "--appendonly", "no"])
    url = f"redis://127.0.0.1:{port}/0"
    wait_until(lambda: _answers(url), 20, "redis-server did not start", child)
    return Place(url, f"redis-server {_version(url)}, started for this")


def find_pulsar(processes: Processes) -> Place:
    """Use ``STARGATE_URL``, or start LocalPulsar."""
    url = os.environ.get("STARGATE_URL")
    if url:
        return Place(url.rstrip("/"), f"Pulsar at {_address(url)}")
    child = processes.python("local-pulsar", "celery_stargate.testing", "--port", "0")
    return Place(child.first_line(20), "LocalPulsar: a stand-in, in memory; no broker")


def choose_prefix() -> str:
    """Return a prefix that keeps this run apart on shared servers."""
    return f"demo-{secrets.token_hex(4)}"


def start_workers(processes: Processes) -> tuple[Child, Child]:
    """Start two Celery workers that share the lanes, and wait until both are there.

    The first one serves an empty queue: it will be killed, and Celery over Redis can lose the tasks
    of a killed worker. Lanes lose nothing.
    """
    from . import lanes
    from .app import TASKS, ready

    publisher = _start_worker(processes, "publisher", "nothing")
    worker = _start_worker(processes, "worker", TASKS)
    wait_until(
        lambda: lanes.workers() == 2,
        60,
        "the workers did not come up",
        publisher,
        worker,
    )
    ready.delay().get(timeout=60)
    return publisher, worker


def _start_worker(processes: Processes, name: str, queue: str) -> Child:
    return processes.python(
        name,
        "celery",
        "--app=examples.demo.app",
        "worker",
        f"--hostname={name}@demo",
        f"--queues={queue}",
        "--concurrency=1",
        "--loglevel=INFO",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    )


def forget(url: str, prefix: str) -> None:
    """Delete the keys of this run, and no others."""
    # If Redis is away, nothing can be deleted.
    with redis.Redis.from_url(url) as client, suppress(redis.RedisError):
        for key in client.scan_iter(f"{prefix}*", count=1000):
            client.delete(key)


def wait_until(done: Callable[[], bool], timeout: float, problem: str, *alive: Child) -> None:
    """Wait until something is true, while the given processes live.

    Raises:
        DemoError: it took longer than ``timeout`` seconds, or a process ended.
    """
    end = time.monotonic() + timeout
    while not done():
        for child in alive:
            child.require_alive()
        if time.monotonic() > end:
            raise DemoError(f"{problem} in {timeout:g} s")
        time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _version(url: str) -> str:
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        return str(client.info("server")["redis_version"])


def _address(url: str) -> str:
    """Return host and port, without the password of the URL."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
