"""``lanes/progress.py``: how far a lane's messages have come."""

from __future__ import annotations

from celery_stargate.lanes.progress import Progress, read_progress


def test_a_lane_that_has_sent() -> None:
    """Whether this hold of the lease began the generation is told by its fencing token."""
    values = [b"7", b"5", b"a generation", b"3", b"one:3 caller:1 9"]
    expected = Progress(7, 5, "a generation", own=True)
    assert read_progress(values, 3) == (expected, "one:3 caller:1 9")
    assert not read_progress(values, 4)[0].own


def test_a_lane_that_begins() -> None:
    """Nothing is there yet."""
    assert read_progress([None] * 5, 1) == (Progress(0, 0, "", own=False), "")
