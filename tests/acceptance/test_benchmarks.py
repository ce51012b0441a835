"""Benchmarks that look into processes, each in a short round on real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.figures import Report
from benchmarks.steps_figures import STEPS
from tests.servers.fixtures import PulsarAddress

_ROOT = Path(__file__).parents[2]


def run(pulsar: PulsarAddress, *command: str) -> str:
    """Run a command of the benchmarks, and return what it prints."""
    environ = {
        **os.environ,
        "STARGATE_TEST_PULSAR_URL": pulsar.url,
        "STARGATE_TEST_PULSAR_HTTP_URL": pulsar.http_url,
        "STARGATE_TEST_PULSAR_SERVICE_URL": pulsar.service_url,
    }
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=_ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.no_cover
def test_the_profile_finds_each_thread_of_a_worker(pulsar: PulsarAddress) -> None:
    """It knows them by their names, and fails when one is called something else."""
    printed = run(pulsar, "benchmarks.profile", "--quick")
    for title in ("caller", "worker's loop", "worker's callbacks", "worker's results"):
        assert f"| {title}, `on_ack` | " in printed


@pytest.mark.no_cover
def test_the_comparison_counts_cpu(pulsar: PulsarAddress, tmp_path: Path) -> None:
    """Of the caller, Redis and the worker, while a rival is measured; Pulsar is another's here."""
    run(pulsar, "benchmarks", "--quick", "--only", "together", "--output", str(tmp_path))
    report = msgspec.json.decode((tmp_path / "latest.json").read_bytes(), type=Report)
    assert not report.left_out
    cpu = {each.name: [part.median > 0 for part in each.cpu] for each in report.groups[0].figures}
    assert set(cpu) == {"produce-threads", "aproduce-loop", "floor-loop"}
    assert all(found == [True, True, True, False] for found in cpu.values())


@pytest.mark.no_cover
def test_the_steps_of_a_call_are_the_whole_call(pulsar: PulsarAddress) -> None:
    """Each is found in the caller or the owner, whose modules it knows by their names."""
    printed = run(pulsar, "benchmarks.steps", "--quick")
    lines = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")][1:]
    micros = [int(line[1].partition(" ")[0].replace(",", "")) for line in lines]
    *steps, whole, bare = micros
    assert len(steps) == len(STEPS)
    # Each is a median of its own.
    assert 0.7 * whole < sum(steps) < 1.3 * whole
    assert bare > 0
