"""The benchmarks that look into the worker, each in a short round on real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.fixtures import PulsarAddress

_ROOT = Path(__file__).parents[2]


@pytest.mark.no_cover
def test_the_profile_finds_each_thread_of_a_worker(pulsar: PulsarAddress) -> None:
    """It knows them by their names, and fails when one is called something else."""
    environ = {
        **os.environ,
        "STARGATE_TEST_PULSAR_URL": pulsar.url,
        "STARGATE_TEST_PULSAR_HTTP_URL": pulsar.http_url,
        "STARGATE_TEST_PULSAR_SERVICE_URL": pulsar.service_url,
    }
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.profile", "--quick"],
        cwd=_ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    for title in ("caller", "worker's loop", "worker's callbacks", "worker's results"):
        assert f"| {title}, `on_ack` | " in ran.stdout
