"""What follows a receipt, as a task's request tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celery_stargate.model.follow_up import PRODUCE, FollowUp, is_plain_id, read_request
from celery_stargate.task import ProduceTask


@pytest.mark.parametrize(
    ("request_", "follow_up"),
    [
        ({"ignore_result": False}, FollowUp.RESULT),
        ({"ignore_result": True}, FollowUp.IGNORED),
        ({"ignore_result": False, "callbacks": [], "chain": None}, FollowUp.RESULT),
        ({"ignore_result": None}, FollowUp.MORE),
        ({}, FollowUp.MORE),
        ({"ignore_result": False, "group": "g"}, FollowUp.MORE),
        ({"ignore_result": True, "parent_id": "p"}, FollowUp.MORE),
        ({"ignore_result": False, "callbacks": [{"task": "x"}]}, FollowUp.MORE),
        ({"ignore_result": True, "chain": [{"task": "x"}]}, FollowUp.MORE),
        ({"ignore_result": False, "chord": {"task": "x"}}, FollowUp.MORE),
    ],
)
def test_what_follows_a_task(request_: dict[str, Any], follow_up: FollowUp) -> None:
    """Its result, or none; or it may be anything."""
    request = read_request(json.dumps({"lang": "py", **request_}))
    assert request is not None
    assert request.follow_up is follow_up


@pytest.mark.parametrize(
    ("request_", "counts"),
    [
        ({}, False),
        ({"chord": {"task": "x"}}, True),
        ({"chord": {"task": "x"}, "callbacks": [], "chain": None}, True),
        ({"chord": {"task": "x"}, "callbacks": [{"task": "x"}]}, False),
        ({"chord": {"task": "x"}, "chain": [{"task": "x"}]}, False),
    ],
)
def test_what_only_counts_for_a_chord(request_: dict[str, Any], counts: bool) -> None:
    """Nothing else goes on from it."""
    request = read_request(json.dumps(request_))
    assert request is not None
    assert request.counts is counts


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
