"""Processes that end: they publish to the last, and give their lanes back."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import redis

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.testing import LocalPulsar
from tests.servers.fixtures import ServerAddress

_HEAD = """
import atexit, signal, sys, threading, time
from celery import Celery
from celery_stargate import Acknowledger, Stargate
redis_url, url, topic, prefix = sys.argv[1:]
app = Celery(broker=redis_url, backend=redis_url)
app.conf.update(stargate_url=url, stargate_topic=topic, stargate_prefix=prefix, stargate_lease=30)
stargate = Stargate(app)
"""

_SCRIPTS = {
    "at the end": "stargate.produce('1')",
    "in a handler": """
stargate.produce('1', topic=topic + '-a')
atexit.register(lambda: stargate.produce('1', timeout=8))
""",
    "first in a handler": """
atexit.register(lambda: stargate.produce('1', timeout=8))
""",
    "in a thread": """
def late():
    threading.main_thread().join()
    stargate.produce('1', timeout=8)
stargate.produce('1', topic=topic + '-a')
threading.Thread(target=late).start()
""",
    "in a signal's handler": """
done = []
def interrupt(*_):
    stargate.produce('1', timeout=8)
    done.append(1)
signal.signal(signal.SIGALRM, interrupt)
stargate.produce('0', topic=topic + '-a')
signal.setitimer(signal.ITIMER_REAL, 0.05)
while not done:
    stargate.produce('0', topic=topic + '-a', timeout=8)
""",
    "an error": """
stargate.produce('1')
raise SystemExit('on purpose')
""",
    "an acknowledger": """
Acknowledger(app).start()
app.tasks['celery_stargate.produce'].delay('1').get(timeout=20)
""",
}


@pytest.mark.parametrize("script", _SCRIPTS)
def test_a_process_that_ends_gives_its_lanes_back(
    script: str, redis_server: ServerAddress, local: LocalPulsar, topic: str, prefix: str
) -> None:
    """And what it publishes while it ends is stored, though concurrent.futures has shut down. Hosts
    have names, as they usually do: asyncio resolves them in a thread."""
    named = [each.replace("127.0.0.1", "localhost") for each in (redis_server.url, local.url)]
    ended = subprocess.run(
        [sys.executable, "-c", _HEAD + _SCRIPTS[script], *named, topic, prefix],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert local.payloads(topic) == [b"1"], ended.stderr
    assert ended.stderr in ("", "on purpose\n")
    require_given_back(redis_server, prefix, topic)


def require_given_back(server: ServerAddress, prefix: str, topic: str) -> None:
    """Assert that nobody holds a topic's lane, and that nobody counts as its owner."""
    with redis.Redis.from_url(server.url) as client:
        assert client.get(Lane(topic).key(prefix, "lease")) is None
        for kind in ("workers", "callers"):
            owners: Any = client.zrange(RegistryKeys(prefix).key(kind), 0, -1)
            assert owners == []
