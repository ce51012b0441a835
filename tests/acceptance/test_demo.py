"""The demo as `make demo` runs it, in a process of its own: its figures, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from tests.acceptance.rig import eventually
from tests.servers.fixtures import PulsarAddress, ServerAddress

_ROOT = Path(__file__).parents[2]
#: What the demo publishes beside its stream: 100 timed calls, a chain, a list and a chord.
_BESIDE = 100 + 1 + 5 + 5


@contextmanager
def _demo(env: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo in a session of its own, so that a signal for it is for nobody else."""
    # Only the addresses that the test gives: a developer's own must not change what is tested.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("STARGATE_URL", "REDIS_URL")
    }
    # Where the tests run in the background SIGINT is ignored, and a child inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        started = subprocess.Popen(
            [sys.executable, "-m", "examples.demo", *arguments],
            env={**inherited, "PYTHONUTF8": "1", **env},
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with started as process:
        try:
            yield process
        finally:
            process.kill()


def _figures(env: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    with _demo(env, "--json", "--messages", "600", *arguments) as process:
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors + output
    return dict(json.loads(output))


def _check(figures: dict[str, Any]) -> None:
    assert figures["problems"] == []
    assert figures["messages"] >= 600 + _BESIDE
    assert figures["stored"] == figures["released"] == figures["messages"]
    assert figures["lost"] == figures["strange"] == figures["false_receipts"] == 0
    assert figures["disordered_keys"] == 0
    assert figures["recovered"] == figures["pending_at_kill"] > 0
    assert figures["without_receipt_at_kill"] > 0
    # Each tenth of the single messages, and each list of the burst.
    assert figures["callbacks"] == figures["callbacks_expected"] >= 40
    assert figures["errors_told"] == 1
    assert "Namespace not found" in figures["refused"]
    assert 0 < figures["get_median_ms"] <= figures["get_p99_ms"]
    assert figures["put_per_second"] > 0
    assert figures["drain_per_second"] > 0
    # The dead worker's lease must pass first; two leases are the promise.
    assert 0.5 < figures["takeover_seconds"] < 2 * figures["lease_seconds"] + 2


def test_it_brings_its_own_servers() -> None:
    """With nothing but Python: an embedded Redis, LocalPulsar, two workers, one killed; nothing is
    lost, and every callback and result comes."""
    figures = _figures({}, "--embedded-redis")
    _check(figures)
    assert "fakeredis" in figures["runs_on"]["redis"]
    assert "LocalPulsar" in figures["runs_on"]["pulsar"]


def test_it_runs_on_real_servers(pulsar: PulsarAddress, redis_server: ServerAddress) -> None:
    """With `STARGATE_URL` and `REDIS_URL` set the same holds on a real Pulsar and Redis, and it
    leaves none of its keys there."""
    with redis_client.Redis.from_url(redis_server.url) as client:
        before = set(client.scan_iter("demo-*", count=1000))
        figures = _figures({"STARGATE_URL": pulsar.url, "REDIS_URL": redis_server.url})
        _check(figures)
        assert "LocalPulsar" not in figures["runs_on"]["pulsar"]
        assert figures["runs_on"]["redis"].startswith("Redis ")
        assert set(client.scan_iter("demo-*", count=1000)) <= before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, a polite and an impolite kill in the midst of it: all its processes end."""
    with _demo({"TMPDIR": str(tmp_path)}, "--messages", "100000") as process:
        assert process.stdout is not None
        # Everything runs once its first step is told.
        assert any("✓" in line for line in process.stdout)
        children = _children(process.pid)
        assert len(children) >= 4, "Redis, LocalPulsar, two workers"
        process.send_signal(number)
        process.wait(timeout=40)
        assert process.returncode != 0
        assert eventually(lambda: not any(map(_alive, children)), 10)


def _ps(*arguments: str) -> list[list[str]]:
    """The lines of `ps`, in words."""
    done = subprocess.run(
        ["ps", *arguments], capture_output=True, text=True, check=False, timeout=10
    )
    return [line.split() for line in done.stdout.splitlines()]


def _children(pid: int) -> list[int]:
    """All processes below one, with their children."""
    parents = {int(child): int(parent) for child, parent in _ps("-A", "-o", "pid=,ppid=")}
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    states = _ps("-o", "stat=", "-p", str(pid))
    return bool(states) and not states[0][0].startswith("Z")
