"""Backoff: the waits double, up to a bound, with jitter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_stargate.support.backoff import Backoff


def longest(_least: float, most: float) -> float:
    """Draw the longest wait each time."""
    return most


def test_waits_double_up_to_a_bound() -> None:
    """And begin anew after a success."""
    backoff = Backoff(first=1, longest=5, uniform=longest)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next() == 1


def test_jitter_is_at_most_half() -> None:
    """The bounds that are drawn between: many who lost one server do not come back at once."""
    drawn: list[tuple[float, float]] = []

    def note(least: float, most: float) -> float:
        drawn.append((least, most))
        return least

    backoff = Backoff(first=1, longest=3, uniform=note)
    assert [backoff.next() for _ in range(3)] == [0.5, 1, 1.5]
    assert drawn == [(0.5, 1), (1, 2), (1.5, 3)]


@pytest.mark.parametrize("tries", [100, 5000])
def test_many_tries(tries: int) -> None:
    """Two to that power is no float, and is not needed."""
    backoff = Backoff(uniform=longest)
    for _ in range(tries):
        wait = backoff.next()
    assert wait == 10


@given(st.integers(0, 50))
def test_defaults_stay_in_bounds(tries: int) -> None:
    """With the real dice."""
    backoff = Backoff()
    for _ in range(tries):
        assert 0.05 <= backoff.next() <= 10
