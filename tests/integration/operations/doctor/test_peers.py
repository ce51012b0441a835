"""A real worker answers with its settings, and doctor tells what differs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from celery_stargate import Stargate
from celery_stargate.operations.doctor.finding import examine
from celery_stargate.operations.doctor.peers import (
    PEER_CHECKS,
    PeerSettings,
    gather_peers,
    settings_here,
)
from tests.integration.conftest import MakeApp
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
)
Stargate(app)
app.worker_main(["worker", "-P", "solo", "-n", "peer@test", "--loglevel", "ERROR"])
"""


def test_asks_the_workers(
    make_app: MakeApp,
    redis_server: ServerAddress,
    prefix: str,
    topic: str,
    tmp_path: Path,
) -> None:
    app = make_app("ws://127.0.0.1:1")
    # The same broker, and other settings.
    other = make_app("ws://127.0.0.1:2", delivery="effectively_once", prefix="other")
    command = [sys.executable, "-c", _PROGRAM, redis_server.url, prefix, topic]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
    try:
        ours = PeerSettings(prefix=prefix)
        facts = wait_for(
            lambda: (found := gather_peers(app, ours)).theirs and found,
            timeout=60.0,
            what=(tmp_path / "log").read_text(),
        )
    finally:
        process.terminate()
        process.wait(60)
    assert set(facts.theirs) == {"peer@test"}
    assert facts.theirs["peer@test"].lanes == {topic: 4}
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
