"""What follows a receipt: by the record, as its message's mark."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celery_stargate.lanes.record import Record
from celery_stargate.lanes.sequel import PRODUCE, Sequel, is_plain_id, read_request
from celery_stargate.task import ProduceTask


def called(task: str = PRODUCE, *, is_list: bool = False, **request: Any) -> Record:
    """Return the record of a task's call."""
    packed = json.dumps({"ignore_result": False, "lang": "py", **request})
    return Record("c", is_list=is_list, task=task, request=packed)


@pytest.mark.parametrize(
    ("record", "sequel"),
    [
        (Record("c"), Sequel.NOTHING),
        (Record("c", on_error="{}"), Sequel.NOTHING),
        (Record("c", on_ack="{}"), Sequel.MORE),
        (Record("c", inbox="i/1"), Sequel.MORE),
        (Record("c", parent=("lane", "c", 1)), Sequel.MORE),
        (called(), Sequel.RESULT),
        (called(ignore_result=True), Sequel.IGNORED),
        (called("shop.orders"), Sequel.RESULT),
        (called(callbacks=[], chain=None, errbacks=[{"task": "x"}]), Sequel.RESULT),
        (called(ignore_result=None), Sequel.MORE),
        (Record("c", task=PRODUCE), Sequel.MORE),
        (called(group="g"), Sequel.MORE),
        (called(parent_id="p"), Sequel.MORE),
        (called(callbacks=[{"task": "x"}]), Sequel.MORE),
        (called(chain=[{"task": "x"}]), Sequel.MORE),
        (called(chord={"task": "x"}), Sequel.MORE),
        (called(is_list=True), Sequel.MORE),
        (called(group={"__type__": "uuid"}), Sequel.MORE),
        (Record("c", task=PRODUCE, request="[1"), Sequel.MORE),
    ],
)
def test_what_follows(record: Record, sequel: Sequel) -> None:
    """Where it cannot be told for sure, it may be anything."""
    assert record.sequel is sequel


@pytest.mark.parametrize(
    ("record", "mark"),
    [
        (Record("c"), "q"),
        (called(), "r"),
        (called(ignore_result=True), "i"),
        (called("shop.orders"), "rshop.orders"),
        (called("shop.orders", ignore_result=True), "ishop.orders"),
        (called("shop.orders", group="g"), "f"),
    ],
)
def test_the_mark_names_a_task_of_ones_own(record: Record, mark: str) -> None:
    """Every app's own has no name there: it would be most of what a message costs."""
    assert record.mark == mark


def test_every_apps_own_task_has_that_name() -> None:
    """A mark without a name means it."""
    assert ProduceTask.default_name == PRODUCE


def test_requests() -> None:
    """None where one cannot be read for sure."""
    assert read_request(None) is not None
    assert read_request('{"chain": 7}') is None
    assert read_request("{") is None


@pytest.mark.parametrize(
    ("context", "plain"),
    [
        ("0b4f2c1e-7a55", True),
        ("a_b.c:d@e#f", True),
        ("", False),
        ('a"b', False),
        ("\u00e4", False),
    ],
)
def test_ids_that_json_writes_as_they_stand(context: str, plain: bool) -> None:
    """Others are Celery's to write."""
    assert is_plain_id(context) is plain
