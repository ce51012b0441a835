"""A process ends in bounded time, whatever hangs in it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from celery_stargate import Acknowledger, Stargate
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import elapsed, wait_for
from tests.servers.fixtures import ServerAddress

_ROOT = Path(__file__).parents[2]

_SCRIPT = """
    import threading, sys
    from celery import Celery
    from celery_stargate import Stargate

    def token():
        print("asked", flush=True)
        threading.Event().wait()

    app = Celery("hangs")
    app.conf.update(
        stargate_url=sys.argv[1], stargate_redis_url=sys.argv[2], stargate_prefix=sys.argv[3],
        stargate_topic="persistent://public/default/hangs", stargate_token=token,
        stargate_drain_timeout=1.0,
    )
    try:
        Stargate(app).produce("x", timeout=2)
    except Exception as error:
        print(type(error).__name__)
"""


def test_a_script_ends_though_its_token_callable_hangs(
    local: LocalPulsar, redis_server: ServerAddress, prefix: str
) -> None:
    """Its call with its deadline, and the process with it."""
    command = [sys.executable, "-c", textwrap.dedent(_SCRIPT), local.url, redis_server.url, prefix]
    with elapsed() as seconds:
        ran = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, timeout=60, check=True
        )
    assert ran.stdout.split() == ["asked", "ProduceTimeout"], ran.stderr
    # To start, its timeout, what is settled after it, and the drain.
    assert seconds() < 20


def test_an_acknowledger_stops_though_the_token_callable_hangs(
    make_app: MakeApp, local: LocalPulsar
) -> None:
    """Within the drain and a little more."""
    release = threading.Event()
    asked: list[int] = []

    def token() -> str:
        asked.append(1)
        release.wait(60)
        return "late"

    app = make_app(local.url, token=token, drain_timeout=1.0)
    acknowledger = Acknowledger(app)
    acknowledger.start()
    app.tasks["celery_stargate.produce"].apply_async(("x",), ignore_result=True)
    wait_for(lambda: asked)
    try:
        with elapsed() as seconds:
            acknowledger.stop()
        assert seconds() < 5
        assert Stargate.of(app).lanes.registry.survey()[0] == 0
    finally:
        release.set()
