"""``calls/revoking.py``: which stamps a request has, and what became of a list over lanes."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate.calls.revoking import Revoker, stamps_of
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.lanes.revocations import Revoked
from tests.unit.helpers import TOPIC, failure, make_stargate


@pytest.mark.parametrize(
    ("request_", "stamps"),
    [
        ({"stamped_headers": ["order"], "stamps": {"order": "17"}}, {"order": ["17"]}),
        ({"stamped_headers": ["order"], "stamps": {"order": [17, "18"]}}, {"order": ["17", "18"]}),
        ({"stamped_headers": ["order"], "stamps": {"shop": "x"}}, {}),
        ({"stamped_headers": [5, "order"], "stamps": {"order": "17"}}, {"order": ["17"]}),
        ({"stamped_headers": "order", "stamps": {"order": "17"}}, {}),
        ({"stamped_headers": 5, "stamps": {}}, {}),
        ({"stamped_headers": ["order"], "stamps": "17"}, {}),
        ({}, {}),
    ],
)
def test_the_stamps_of_a_request(request_: dict[str, Any], stamps: dict[str, list[str]]) -> None:
    """As texts; what another process wrote there may be anything."""
    found = {header: each for header, each in stamps_of(request_).items() if each != ["None"]}
    assert {header: each for header, each in found.items() if each} == stamps


@pytest.mark.parametrize(("ended", "canceled"), [((0, 1, 2), True), ((1,), False)])
def test_a_list_whose_messages_are_in_other_lanes(ended: tuple[int, ...], canceled: bool) -> None:
    """Is revoked message by message; it counts as sent if one of them may have been."""
    stargate, lanes, _ = make_stargate()
    revoker = Revoker(stargate.runtime)
    asked: list[list[str]] = []

    class Revocations:
        def revoke(self, where: Any, contexts: list[str], first: int | None = None) -> Revoked:
            asked.append(contexts)
            if contexts == ["c"]:
                return Revoked(elsewhere={"c": 3})
            settled = [Settled(Record(contexts[place]), (failure(),)) for place in ended]
            return Revoked({Lane(TOPIC): settled})

    vars(revoker)["_revocations"] = Revocations()
    vars(lanes)["survey"] = lambda: (1, [Lane(TOPIC), CONTEXTS_LANE])
    vars(revoker)["_attempts"] = lambda contexts: dict.fromkeys(contexts, "c")
    assert revoker.cancel("c") is canceled
    assert asked == [["c"], ["c\t0", "c\t1", "c\t2"]]
