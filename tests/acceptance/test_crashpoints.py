"""Crash points: a bounded sample. `python -m tests.crashpoints` runs all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.crashpoints.steps import STEPS, points
from tests.crashpoints.trial import DELIVERIES, Theatre
from tests.servers import redis as redis_module
from tests.servers.fixtures import require

#: The steps at which a message is in two places; the others are in the long form.
_SAMPLE = [
    *("record-after-kill", "send-after-kill", "settle-after-kill", "complete-after-kill"),
    *("callback-after-kill", "read-after-stall"),
]


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Redis, the stand-in for Pulsar, and the worker that records callbacks."""
    require(redis_module.missing_reason())
    with Theatre(tmp_path_factory.mktemp("crashpoints")) as theatre:
        yield theatre


def test_an_undisturbed_message_passes_each_step(theatre: Theatre) -> None:
    """The table is the way that messages go: a step that none passes is wrong there."""
    assert theatre.passed() == {step.name for step in STEPS}


@pytest.mark.parametrize("name", _SAMPLE)
def test_a_crash(theatre: Theatre, name: str) -> None:
    """Each message has one outcome and is in the topic, in order; each callback has come."""
    [point] = [each for each in points() if each.name == name]
    delivery = random.Random(name).choice(DELIVERIES)
    result = theatre.run(point, delivery, nth=1, messages=30)
    assert result.good, str(result)
