"""``completion.py``: the order that the script ``complete`` relies on."""

from __future__ import annotations

from celery_stargate.lanes.completion import completion_arguments, completion_keys
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import FollowUp, ResultRow
from tests.unit.helpers import receipt


def entry(number: int, inbox: str = "") -> Entry:
    """A message of the context c<number>."""
    return Entry(number, f"c{number}", b"frame", -1, FollowUp.NOTHING, inbox=inbox)


def test_rows_come_before_calls_and_each_inbox_once() -> None:
    """Contexts and numbers, then two of each row and call; an inbox is where it is named first."""
    quiet, row = [entry(1)], [(entry(2), ResultRow("key", b"value", 60))]
    boxes = ("b/1", "a/1", "b/2")
    calls = [(entry(3 + i, box), receipt(f"c{3 + i}")) for i, box in enumerate(boxes)]
    keys = completion_keys("p", row, calls)
    assert keys == ["key", "p:inbox:b", "p:inbox:a"]
    arguments = completion_arguments(quiet, row, calls)
    assert arguments[:3] == [5, 1, 3]
    assert arguments[3:13] == ["c1", "c2", "c3", "c4", "c5", 1, 2, 3, 4, 5]
    assert arguments[13:15] == [b"value", 60]
    assert tuple(arguments[16::2]) == boxes


def test_nothing_follows() -> None:
    """There are no keys."""
    assert completion_keys("p", [], []) == []
    assert completion_arguments([entry(1)], [], []) == [1, 0, 0, "c1", 1]
