"""A sample of the fault runs; `python -m tests.faults --all` runs all kinds at their full size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import processes, servers
from tests.faults.plan import Plan
from tests.faults.registry import KINDS
from tests.faults.trial import Trial
from tests.servers.fixtures import PulsarAddress

assert processes
assert servers


@pytest.mark.parametrize(("name", "seed"), [("worker-killed", 2), ("topic-unloaded", 1)])
def test_a_run_keeps_its_promises(
    pulsar: PulsarAddress, tmp_path: Path, name: str, seed: int
) -> None:
    """One strike among some hundred messages; the checker finds nothing that was promised."""
    plan = Plan(replace(KINDS[name], strikes=1), seed, messages=300, in_flight=50)
    result = Trial(pulsar, tmp_path, plan).run()
    assert result.good, str(result)
    assert len(result.sets.strikes) == 1
    assert result.sets.callbacks_wanted > 0
