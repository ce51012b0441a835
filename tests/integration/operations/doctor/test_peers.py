"""A real worker: it answers with its settings, and doctor tells what differs; then it hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from celery_stargate import Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.operations.doctor.finding import examine
from celery_stargate.operations.doctor.peers import (
    PEER_CHECKS,
    PeerSettings,
    gather_peers,
    settings_here,
)
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put
from tests.integration.operations.doctor.conftest import Diagnose
from tests.integration.rig import wait_for
from tests.servers.fixtures import ServerAddress

_PROGRAM = """
import sys
from celery import Celery
from celery_stargate import Stargate
url, prefix, topic = sys.argv[1:]
app = Celery("integration", broker=url, backend=url)
app.conf.update(
    broker_transport_options={"global_keyprefix": f"{prefix}:"},
    stargate_url="ws://127.0.0.1:1",
    stargate_prefix=prefix,
    stargate_topic=topic,
    stargate_lanes=4,
    # While it hangs it counts as alive.
    stargate_lease=60,
)
Stargate(app)
app.worker_main(["worker", "-P", "solo", "-n", "peer@test", "--loglevel", "ERROR"])
"""


@contextmanager
def worker(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of version 0.0.1, as its installation says."""
    installed = folder / "celery_stargate-0.0.1.dist-info"
    installed.mkdir()
    about = "Metadata-Version: 2.1\nName: celery-stargate\nVersion: 0.0.1\n"
    (installed / "METADATA").write_text(about)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    # Not by ``-c``: then the present folder comes first, which may hold an installation, too.
    program = folder / "program.py"
    program.write_text(_PROGRAM)
    command = [sys.executable, str(program), *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path}
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(60)


@pytest.mark.plants("workers-place")
@pytest.mark.plants("workers-topics")
@pytest.mark.plants("workers-version")
@pytest.mark.plants("lanes-owners")
def test_asks_the_workers(
    make_app: MakeApp,
    diagnose: Diagnose,
    redis_server: ServerAddress,
    prefix: str,
    topic: str,
    tmp_path: Path,
) -> None:
    # The same broker, and other settings.
    app = make_app("ws://127.0.0.1:2", delivery="effectively_once")
    other = make_app("ws://127.0.0.1:2", delivery="effectively_once", prefix="other")
    with worker(tmp_path, redis_server.url, prefix, topic) as process:
        ours = PeerSettings(prefix=prefix)
        facts = wait_for(
            lambda: (found := gather_peers(app, ours)).theirs and found,
            timeout=60.0,
            what=(tmp_path / "log").read_text(),
        )
        # It says that it is alive when its lanes' thread runs.
        told = wait_for(lambda: (found := diagnose(app)).get("workers-version") and found)
        assert "lanes-owners" not in told
        process.send_signal(signal.SIGSTOP)
        put(Stargate.of(app).lanes, Lane(topic), "a")
        assert Lane(topic).name in diagnose(app)["lanes-owners"].found
    assert set(facts.theirs) == {"peer@test"}
    assert facts.theirs["peer@test"].lanes == {topic: 4}
    assert "peer@test runs celery-stargate 0.0.1" in told["workers-version"].found
    assert "workers-place" in told
    assert "workers-topics" in told
    runtime = Stargate.of(other).runtime
    there = settings_here(runtime.settings, runtime.connections.sync())
    found = [each.found for each in examine(PEER_CHECKS, replace(facts, ours=there))]
    assert any("stargate_prefix" in each for each in found)
    assert any("stargate_url ws://127.0.0.1:1" in each for each in found)
    assert any("4 lanes" in each for each in found)
    assert any("stargate_delivery at_least_once" in each for each in found)


def test_a_broker_that_is_away_is_not_asked(make_app: MakeApp, redis_server: ServerAddress) -> None:
    app = make_app(
        "ws://127.0.0.1:1",
        redis_url=redis_server.url,
        conf={
            "broker_url": "redis://127.0.0.1:1/0",
            "broker_transport_options": {"max_retries": 0},
        },
    )
    assert not gather_peers(app, PeerSettings()).asked
