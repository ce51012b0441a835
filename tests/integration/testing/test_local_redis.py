"""``local_redis.py``: a Redis that does not start or end, and one that is fakeredis."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import pytest
import redis

from celery_stargate.testing import local_redis
from celery_stargate.testing.local_redis import LocalRedis, RedisMissing
from tests.servers.fixtures import require
from tests.servers.redis import missing_reason


def test_one_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is tried again; then its log is told at once, and nothing is left."""
    tries, folder = tmp_path / "tries", tmp_path / "temporary"
    folder.mkdir()
    server = tmp_path / "redis-server"
    server.write_text(f"#!/bin/sh\necho once >>'{tries}'\necho no memory\nexit 1\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    made = LocalRedis()
    with pytest.raises(RuntimeError, match=r"did not start:\nno memory"):
        made.start()
    assert tries.read_text().split() == ["once"] * 3
    assert list(folder.iterdir()) == []
    made.stop()


def test_none_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RedisMissing, match="apt-get install redis-server"):
        LocalRedis().start()


def test_a_frozen_one_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server itself, not only the shell that watches it."""
    require(missing_reason())
    monkeypatch.setattr(local_redis, "_END_TIMEOUT", 0.1)
    server = LocalRedis()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        about = client.info("server")
    os.kill(about["process_id"], signal.SIGSTOP)
    server.stop()
    end = time.monotonic() + 20
    while listens(about["tcp_port"]):
        assert time.monotonic() < end
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether anybody listens on a port; the kernel does for a process that is frozen."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_an_error_is_an_answer_of_the_fake_one() -> None:
    """Among the others of a pipeline; the connection goes on."""
    with LocalRedis(fake=True) as server, redis.Redis.from_url(server.url) as client:
        pipeline = client.pipeline(transaction=False)
        pipeline.set("a", "x").incr("a").get("a")
        first, error, last = pipeline.execute(raise_on_error=False)
        assert (first, last) == (True, b"x")
        assert isinstance(error, redis.ResponseError)
        assert client.ping()
