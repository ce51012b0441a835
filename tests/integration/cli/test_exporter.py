"""``exporter``: metrics of the lanes, by HTTP, without a worker."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest

from celery_stargate import Stargate
from celery_stargate.cli import exporter
from celery_stargate.lanes.lane import Lane
from celery_stargate.support.stop_event import StopEvent
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
from celery_stargate.cli import exporter
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


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put the handlers of signals back: the command runs in this process."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGINT])
def test_ends_on_a_signal_and_leaves_nothing(
    run: Run, make_app: MakeApp, topic: str, monkeypatch: pytest.MonkeyPatch, ends: signal.Signals
) -> None:
    """It served until then; afterwards its port is free, and its thread has ended."""
    app = make_app("ws://127.0.0.1:1")
    put(Stargate.of(app).lanes, Lane(topic), "a")
    served: list[tuple[Any, threading.Thread]] = []
    start = prometheus_client.start_http_server

    def noted(*given: Any) -> Any:
        served.append(start(*given))
        return served[-1]

    class Ends(StopEvent):
        """A signal comes while the command waits for one."""

        def wait(self, timeout: float | None = None) -> bool:
            address = f"http://127.0.0.1:{served[0][0].server_port}/metrics"
            with urllib.request.urlopen(address, timeout=WAIT) as answer:
                scraped.append(answer.read().decode())
            signal.raise_signal(ends)
            return super().wait(WAIT)

    scraped: list[str] = []
    monkeypatch.setattr(prometheus_client, "start_http_server", noted)
    monkeypatch.setattr(exporter, "StopEvent", Ends)
    ran = run("exporter", "--port", "0", app=app)
    [(server, thread)] = served
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == f"Metrics at http://127.0.0.1:{server.server_port}/metrics\n"
    assert f'stargate_backlog_messages{{topic="{topic}"}} 1.0' in scraped[0]
    assert not thread.is_alive()
    assert server.socket.fileno() == -1


@pytest.mark.usefixtures("handlers")
def test_a_port_that_is_taken_is_told(run: Run, make_app: MakeApp) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        ran = run(
            "exporter", "--port", str(held.getsockname()[1]), app=make_app("ws://127.0.0.1:1")
        )
    assert ran.code == 1
    assert "Address already in use" in ran.err


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
