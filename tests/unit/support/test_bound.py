"""One bound for all I/O of a call."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from celery_stargate.support.bound import USUAL, bounded, call_bound, time_left
from tests.threads import interrupted


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


@pytest.mark.no_cover
def test_a_signals_handler_that_raises_leaves_no_bound() -> None:
    """Wherever it raises: a bound that was never left would end each later call of the thread."""

    class Stop(BaseException): ...

    def stop() -> None:
        raise Stop

    found: list[float] = []

    def work() -> None:
        with bounded(0.0):
            time_left()
        with bounded(60.0), call_bound():
            time_left()

    def call() -> None:
        last = step = 0
        while last == step:
            step += 1
            with contextlib.suppress(Stop), interrupted(step, stop) as steps:
                work()
            last = steps[0]
            found.append(time_left())

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(20)
    assert len(found) > 30
    assert set(found) == {USUAL}


def test_a_bound_around_one_that_was_not_left() -> None:
    """Holds on, also in the bounds that come after."""
    with bounded(60.0):
        bounded(0.0).__enter__()
        assert 59 < time_left() <= 60
        with call_bound():
            assert 59 < time_left() <= 60
            with bounded(0.0):
                assert time_left() == 0
        assert 59 < time_left() <= 60
    assert time_left() == USUAL
