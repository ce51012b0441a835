"""Flower, which reads the events of a worker with ``-E``: what it shows of produce tasks."""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.acceptance.conftest import MakeRig
from tests.acceptance.rig import WAIT, Rig, Worker, eventually
from tests.acceptance.tasks import CONF, LOG_URL, READY
from tests.servers.ports import free_ports
from tests.servers.process import ServerProcess


class Flower:
    """A running Flower."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str) -> Any:
        """Return what its API answers; None while it does not."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/{path}", timeout=WAIT) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            return None

    def task(self, task_id: str, state: str) -> Any:
        """Return what it knows of a task, when that has a state."""

        def found() -> Any:
            task = self.ask(f"task/info/{task_id}")
            return task if task and task["state"] == state else None

        return eventually(found)


@contextmanager
def running_flower(rig: Rig, worker: Worker) -> Iterator[Flower]:
    """Run Flower beside a worker."""
    [port] = free_ports(1)
    command = [
        *(sys.executable, "-m", "celery", "-A", "tests.acceptance.app", "flower"),
        *("--address=127.0.0.1", f"--port={port}", "--enable_events", "--logging=warning"),
    ]
    process = ServerProcess(
        "flower",
        command,
        log_path=rig.folder / f"flower-{port}.log",
        env={**os.environ, **worker.env, "FLOWER_UNAUTHENTICATED_API": "true"},
    )
    flower = Flower(f"http://127.0.0.1:{port}")
    process.start(lambda: flower.ask("workers?refresh=true") is not None, timeout=45)
    try:
        yield flower
    finally:
        process.stop(timeout=25)


@pytest.fixture(scope="module")
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()


@pytest.fixture(scope="module")
def flower(rig: Rig) -> Iterator[Flower]:
    """Flower, beside a worker that sends events."""
    with rig.worker(args=["-E"]) as worker, running_flower(rig, worker) as flower:
        yield flower


def test_a_stored_message(rig: Rig, flower: Flower) -> None:
    """Received, started, succeeded; its topic among the arguments, its message id in the result."""
    result = rig.produce.delay("the payload")
    receipt = result.get(timeout=WAIT)
    task = flower.task(result.id, "SUCCESS")
    assert task["name"] == "celery_stargate.produce"
    assert task["received"] <= task["started"] <= task["succeeded"]
    assert rig.topic_name in task["args"]
    assert receipt["message_id"] in task["result"]
    assert "the payload" not in json.dumps(task)


def test_a_refused_message_failed_with_its_reason(rig: Rig, flower: Flower) -> None:
    result = rig.produce.delay("the payload", topic=rig.refused())
    task = flower.task(result.id, "FAILURE")
    assert "Namespace not found" in task["exception"]
    assert "the payload" not in json.dumps(task)


def test_a_message_that_expired_before_it_was_sent(rig: Rig, flower: Flower) -> None:
    """Received, and never started."""
    result = rig.produce.apply_async(("the payload",), countdown=0.6, expires=0.3)
    task = flower.task(result.id, "REVOKED")
    assert task["received"]
    assert task["started"] is None
    assert rig.topic_name in task["args"]


def test_a_callback_is_a_child(rig: Rig, flower: Flower) -> None:
    key = rig.key()
    result = rig.produce.delay("the payload", on_ack=rig.record(key))
    [got] = rig.recorded(key)
    task = flower.task(got["id"], "SUCCESS")
    assert task["parent_id"] == result.id
    assert task["root_id"] == result.id


def test_the_worker_is_there(rig: Rig, flower: Flower) -> None:
    [worker] = flower.ask("workers?refresh=true").values()
    assert worker["stats"]["stargate"] == {"running": True}


def test_celery_events_shows_the_same(rig: Rig, flower: Flower) -> None:
    """``celery events --dump``, beside the same worker."""
    [worker] = flower.ask("workers")
    command = [sys.executable, "-m", "celery", "-A", "tests.acceptance.app", "events", "--dump"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1", CONF: json.dumps(rig.conf), READY: rig.key()}
    path = rig.folder / "events.log"
    process = ServerProcess("events", command, log_path=path, env={**env, LOG_URL: rig.redis_url})
    # It hears the worker's heartbeat, which comes every two seconds.
    process.start(lambda: worker in path.read_text(), timeout=45)
    try:
        result = rig.produce.delay("the payload")
        eventually(lambda: "task succeeded" in path.read_text())
    finally:
        process.stop(timeout=25)
    text = path.read_text()
    assert re.findall(r" task (\w+):", text) == ["received", "started", "succeeded"]
    assert f"task received: celery_stargate.produce({result.id})" in text
