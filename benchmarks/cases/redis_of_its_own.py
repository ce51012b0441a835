"""A Redis for a case, which goes with it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.redis import RedisServer

__all__ = ["redis_url"]


@contextmanager
def redis_url() -> Iterator[str]:
    """Start a Redis, and yield its URL."""
    with (
        tempfile.TemporaryDirectory(prefix="stargate-case-") as folder,
        RedisServer(Path(folder) / "redis") as server,
    ):
        yield server.url
