"""How often a fault strikes in a run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.faults.plan import Plan
from tests.faults.registry import Kind


@contextmanager
def _nothing(trial: Any, draw: random.Random) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("messages", "given", "repeats", "once"),
    [(300, None, 3, 3), (5000, None, 3, 3), (20_000, None, 12, 3), (20_000, 40, 40, 3)],
)
def test_a_longer_run_has_more_strikes(
    messages: int, given: int | None, repeats: int, once: int
) -> None:
    """Where a kind may repeat."""
    for kind, wanted in (
        (Kind("often", "", _nothing), repeats),
        (Kind("once", "", _nothing, repeats=False), once),
    ):
        assert Plan(kind, messages=messages, strikes=given).strike_count == wanted
