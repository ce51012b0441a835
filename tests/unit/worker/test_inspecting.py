"""``worker/inspecting.py``: what ``celery inspect`` shows has an end."""

from __future__ import annotations

import pytest

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.view import Waiting
from celery_stargate.worker import inspecting
from celery_stargate.worker.inspecting import TaskInspector
from tests.unit.helpers import TOPIC, make_stargate


def test_tasks_of_many_lanes_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all lanes together; calls that are no tasks do not count."""
    monkeypatch.setattr(inspecting, "_LIMIT", 3)
    stargate, _, _ = make_stargate()
    shown = TaskInspector(stargate.runtime, "host", "owner")
    lanes = [Lane(TOPIC, index) for index in range(4)]
    looked: list[int] = []

    class View:
        def waiting(self, lane: Lane, limit: int) -> list[Waiting]:
            looked.append(lane.index)
            records = [Record(f"{lane.index}-{n}", task="t", request="{}") for n in range(2)]
            return [Waiting(each, False) for each in (Record("none"), *records)]

    vars(shown)["_view"] = View()
    vars(shown)["_lanes"] = lambda: lanes
    states = {state: shown.tasks(state) for state in ("reserved", "active", "scheduled")}
    [found] = [tasks for tasks in states.values() if tasks]
    assert [each["id"] for each in found] == ["0-0", "0-1", "1-0"]


def test_nothing_waits() -> None:
    """Then nothing is shown."""
    stargate, _, _ = make_stargate()
    shown = TaskInspector(stargate.runtime, "host", "owner")
    vars(shown)["_lanes"] = list
    assert shown.tasks("active") == []
