"""``support/seldom.py``: a repeated message is logged at once, and then ever more seldom."""

from __future__ import annotations

from celery_stargate.support.seldom import Seldom


def test_the_silences_grow_up_to_a_bound() -> None:
    """What happens once a second for an hour is logged a few times."""
    now = 0.0
    ready = Seldom(first=10.0, longest=40.0, monotonic=lambda: now)
    logged = []
    for second in range(200):
        now = float(second)
        if ready():
            logged.append(second)
    assert logged == [0, 10, 30, 70, 110, 150, 190]
