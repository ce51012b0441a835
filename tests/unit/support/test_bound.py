"""One bound for all I/O of a call."""

from __future__ import annotations

import threading
import time

import pytest

from celery_stargate.support.bound import USUAL, bounded, call_bound, time_left


def test_without_a_bound_a_call_has_the_usual_time() -> None:
    """It begins with each call."""
    assert time_left() == USUAL
    with call_bound():
        assert USUAL - 1 < time_left() <= USUAL


def test_the_earlier_end_counts() -> None:
    """A block inside never has more time than the one around it."""
    with bounded(1.0):
        with bounded(10.0), call_bound():
            assert time_left() <= 1.0
        with bounded(0.5):
            assert time_left() <= 0.5
        assert 0.5 < time_left() <= 1.0
    assert time_left() == USUAL


def test_a_bound_that_is_over() -> None:
    """Leaves no time, and none that is negative."""
    with bounded(-1.0):
        assert time_left() == 0


def test_a_bound_is_of_one_thread() -> None:
    """Another thread's call has its own."""
    found: list[float] = []
    with bounded(0.1):
        thread = threading.Thread(target=lambda: found.append(time_left()))
        thread.start()
        thread.join()
    assert found == [USUAL]


def test_a_bound_ends_with_an_error() -> None:
    """Too."""
    with pytest.raises(KeyError), bounded(0.1):
        raise KeyError
    assert time_left() == USUAL
    assert time.monotonic() > 0


def test_a_bound_that_was_never_entered() -> None:
    """Ends without harm, as where the enter of another context beside it fails."""
    with bounded(1.0):
        call_bound().__exit__(None, None, None)
        assert time_left() <= 1.0
