"""``exporter``: metrics of the lanes, by HTTP, without a worker."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from celery_stargate import Stargate
from celery_stargate.lanes.lane import Lane
from tests.integration.cli.conftest import Run
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put
from tests.integration.rig import WAIT
from tests.servers.fixtures import ServerAddress

_PROGRAM = """
import sys
from celery import Celery
from celery.bin.base import CLIContext
from celery_stargate import Stargate
from celery_stargate.cli.main import stargate
app = Celery("exporter", broker=sys.argv[1], backend=sys.argv[1])
app.conf.stargate_prefix = sys.argv[2]
Stargate(app)
stargate(["exporter", "--port", "0"], obj=CLIContext(app, no_color=False, workdir=None))
"""


def test_serves_until_it_is_ended(
    make_app: MakeApp, redis_server: ServerAddress, prefix: str, topic: str
) -> None:
    put(Stargate.of(make_app("ws://127.0.0.1:1")).lanes, Lane(topic), "a")
    command = [sys.executable, "-c", _PROGRAM, redis_server.url, prefix]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found
        with urllib.request.urlopen(found[0], timeout=WAIT) as answer:
            text = answer.read().decode()
        assert f'stargate_backlog_messages{{topic="{topic}"}} 1.0' in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 0
    finally:
        process.kill()
        process.communicate()


def test_prints_once(run: Run, make_app: MakeApp, topic: str) -> None:
    app = make_app("ws://127.0.0.1:1")
    put(Stargate.of(app).lanes, Lane(topic), "a")
    ran = run("exporter", "--once", app=app)
    assert ran.code == 0
    assert f'stargate_recorded_messages_total{{topic="{topic}"}} 1.0' in ran.out


def test_says_which_extra_is_missing(
    run: Run, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    ran = run("exporter", "--once", app=make_app("ws://127.0.0.1:1"))
    assert ran.code == 1
    assert "celery-stargate[prometheus]" in ran.err
