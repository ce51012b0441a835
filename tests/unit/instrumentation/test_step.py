"""The bootstep that serves a worker's metrics, and what does not stop the worker."""

from __future__ import annotations

import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.values import MultiProcessValue

from celery_stargate import Stargate, observers
from celery_stargate.instrumentation import step
from celery_stargate.instrumentation.step import MetricsStep
from celery_stargate.observers import MessageRecorded
from celery_stargate.support.processes import process_name
from tests.servers.ports import free_ports
from tests.unit.helpers import make_app
from tests.unit.instrumentation.test_prometheus import lane

RECORDED = MessageRecorded(context="c", topic="t", lanes=("t#0",))


def worker(port: int) -> Any:
    """Return what the step needs of a worker."""
    app = make_app(stargate_metrics_port=port)
    Stargate(app)
    return SimpleNamespace(app=app, steps=[])


def scrape(port: int) -> list[str]:
    """Return the lines that Prometheus reads, without those that explain others."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        lines: list[str] = answer.read().decode().splitlines()
    return [each for each in lines if not each.startswith("#")]


@contextmanager
def running(parent: Any) -> Iterator[None]:
    """A step of a worker that runs."""
    made = MetricsStep(parent)
    made.create(parent)
    made.start(parent)
    try:
        yield
    finally:
        made.stop(parent)


def records() -> None:
    """Let a caller record a message in this process."""
    observers.tell(lambda each: each.recorded([RECORDED]))


@pytest.fixture(autouse=True)
def _lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Redis: this worker owns one lane, and another worker the other."""
    lanes = [
        lane("t", owner=process_name(), backlog=3),
        lane("t", 1, owner="another-1-0.0.0", backlog=50),
        lane("t", 2, owner=None, backlog=500),
    ]
    inspector = SimpleNamespace(lanes=lambda: lanes)
    monkeypatch.setattr(step, "LaneInspector", lambda reader: inspector)


@pytest.fixture(autouse=True)
def _observers() -> Iterator[None]:
    """A step that was stopped observes nothing."""
    before = observers.anybody()
    yield
    assert observers.anybody() is before


def test_it_is_on_where_there_is_a_port() -> None:
    """By default there is none."""
    assert not MetricsStep(worker(0)).enabled
    assert MetricsStep(worker(9810)).enabled


def test_it_serves_what_this_process_does_until_it_is_stopped() -> None:
    """Counters, and the lanes that it owns; another one may begin where it ended, with 0."""
    [port] = free_ports(1)
    parent = worker(port)
    for _ in range(2):
        with running(parent):
            records()
            found = scrape(port)
            assert 'stargate_recorded_messages_total{topic="t"} 1.0' in found
            assert 'stargate_backlog_messages{topic="t"} 3.0' in found


def test_a_worker_whose_port_is_taken_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The log says which one, and what to do; the step can be stopped as any."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", *free_ports(1)))
        held.listen()
        port = held.getsockname()[1]
        with running(worker(port)):
            records()
    assert f"metrics cannot be served at 127.0.0.1:{port}: " in caplog.text
    assert "Give each worker of a machine its own stargate_metrics_port" in caplog.text


def test_without_prometheus_client_the_worker_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says which extra is missing, once."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with running(worker(port)), pytest.raises(OSError, match="refused"):
            scrape(port)
    [line] = caplog.records
    assert "pip install 'celery-stargate[prometheus]'" in line.getMessage()


def test_in_multiprocess_mode_all_processes_are_one_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of the pool write files; the worker serves them, and its lanes."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    name = "stargate_recorded_messages_total"
    for process, count in (("one", 2), ("other", 5)):
        of_process: Any = MultiProcessValue(lambda process=process: process)  # type: ignore[no-untyped-call]
        of_process("counter", name, name, ["topic"], ["t"], "Messages.").inc(count)
    [port] = free_ports(1)
    with running(worker(port)):
        found = scrape(port)
    assert f'{name}{{topic="t"}} 7.0' in found
    assert 'stargate_backlog_messages{topic="t"} 3.0' in found
