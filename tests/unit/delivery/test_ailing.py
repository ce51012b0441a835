"""``delivery/ailing.py``: a lane that fails is set aside by itself."""

from __future__ import annotations

import pytest

from celery_stargate.delivery.ailing import AilingLanes
from celery_stargate.lanes.lane import Lane
from tests.unit.helpers import TOPIC

ILL, WELL = Lane(TOPIC, 0), Lane(TOPIC, 1)


class Rig:
    """Lanes that fail, by a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lanes = AilingLanes(lambda low, high: high, lambda: self.now)

    def pause(self, lasted: float = 0.0) -> float:
        """Fail once; return for how long the lane is set aside."""
        began = self.now
        self.lanes.failed(ILL, ValueError("broken"), lasted)
        while not self.lanes.may_try(ILL):
            self.now += 1.0
        return self.now - began


def test_the_time_grows_up_to_a_bound() -> None:
    """Only the lane itself is set aside."""
    rig = Rig()
    assert [rig.pause() for _ in range(8)] == [2, 4, 8, 16, 32, 64, 120, 120]
    rig.lanes.failed(ILL, ValueError("broken"))
    assert not rig.lanes.may_try(ILL)
    assert rig.lanes.may_try(WELL)


def test_a_lane_that_worked_for_long_begins_anew() -> None:
    """A failure a day is no reason to leave it for minutes."""
    rig = Rig()
    assert [rig.pause() for _ in range(3)] == [2, 4, 8]
    assert rig.pause(lasted=3600.0) == 2


def test_it_is_logged_seldom(caplog: pytest.LogCaptureFixture) -> None:
    """A lane that fails for a day has some thirty lines."""
    rig = Rig()
    while rig.now < 86_400:
        rig.pause()
    assert len(caplog.records) < 40
    assert "by now" in caplog.records[-1].message


def test_lanes_that_are_gone_are_forgotten() -> None:
    """A list of lanes that changes does not fill the memory."""
    rig = Rig()
    rig.lanes.failed(ILL, ValueError("broken"))
    rig.lanes.keep_only([WELL])
    assert rig.lanes.may_try(ILL)
