"""``operations/reading.py``: how old a context is, and which lanes nobody sees."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.record import Record
from celery_stargate.model.buckets import in_buckets
from celery_stargate.model.settings import Settings
from celery_stargate.operations.reading import LaneReader, configured_timeout
from celery_stargate.operations.records import StoredRecord
from tests.unit.helpers import TOPIC


def reader(redis: Any = None, prefix: str = "p") -> LaneReader:
    """A reader of lanes whose calls have a timeout of 60 s."""
    return LaneReader(redis, prefix, lambda lane, waits: 60.0)


@pytest.mark.parametrize(
    ("recorded_at", "deadline", "age"),
    [
        (90_000, None, (10.0, True)),
        (90_000, 1, (10.0, True)),
        (101_000, None, (0.0, True)),
        (None, 150_000.0, (10.0, False)),
        (None, 190_000.0, (0.0, False)),
        (None, None, (None, False)),
    ],
)
def test_the_age_of_a_context(
    recorded_at: int | None, deadline: float | None, age: tuple[float | None, bool]
) -> None:
    """Its head tells it; else it is assumed from its deadline, or not known."""
    stored = StoredRecord(1, 1, recorded_at, Record("c"))
    assert reader().age(Lane(TOPIC), stored, deadline, 100.0) == age


def test_the_timeout_of_calls_that_give_none() -> None:
    """A caller that waits has one of its own, and each topic may have."""
    topics = {"slow": {"topic": "slow", "delivery_timeout": 500.0}}
    settings = Settings.read(
        {
            "stargate_produce_timeout": 20.0,
            "stargate_delivery_timeout": 300.0,
            "stargate_topics": topics,
        }
    )
    assumed = configured_timeout(settings)
    slow = Lane("persistent://public/default/slow")
    assert assumed(slow, True) == 20.0
    assert assumed(slow, False) == 500.0
    assert assumed(CONTEXTS_LANE, False) == 300.0


class Keys:
    """A Redis that has keys, and registries without lanes.

    Arguments:
        steps: the keys that each step of a scan finds.
    """

    def __init__(self, *steps: list[str]) -> None:
        self.steps = list(steps)
        self.scans = 0

    def zrange(self, *given: Any, **options: Any) -> list[Any]:
        """No lane."""
        return []

    zrangebyscore = zrange

    def scan(self, cursor: int, match: str, count: int) -> tuple[int, list[bytes]]:
        """Return the keys of a step."""
        found = self.steps[self.scans]
        self.scans += 1
        more = self.scans if self.scans < len(self.steps) else 0
        return more, [key.encode() for key in found]


@pytest.mark.parametrize("prefix", ["p", in_buckets("p", 4)])
def test_lanes_that_no_worker_sees(prefix: str) -> None:
    """Are found by their keys, on a Cluster too; other keys are none."""
    lanes = [Lane(TOPIC, index) for index in range(3)]
    keys = [lane.key(prefix, "contexts") for lane in lanes]
    redis = Keys([keys[0]], [], [keys[1].replace("orders", "no lane at all?"), keys[2]])
    found = list(reader(redis, prefix).unregistered(10))
    assert [lane for lane in found if lane in lanes] == [lanes[0], lanes[2]]


def test_a_large_database_is_looked_at_in_part() -> None:
    """A person waits for the answer."""
    redis = Keys([], [], [Lane(TOPIC).key("p", "contexts")])
    assert list(reader(redis).unregistered(2)) == []
    assert redis.scans == 2
