"""What is recorded in which lane: lists over lanes, and lanes that are full."""

from __future__ import annotations

import pytest

from celery_stargate import LaneFull
from celery_stargate.calls.prepare import prepare
from tests.unit.helpers import make_stargate


def test_a_list_over_lanes() -> None:
    """One context holds the places; each message is a context of its own that settles one."""
    _stargate, lanes, task = make_stargate(stargate_lanes=16, stargate_delivery_timeout=60)
    task.apply_async(([("a", "0"), ("b", "1"), ("a", "2")],), task_id="c")
    home, *children = lanes.puts
    assert home.record.context == "c"
    assert home.messages == [("", b"")] * 3
    assert home.options["timeout"] > 60
    assert [(put.record.context, put.record.parent) for put in children] == [
        (f"c\t{place}", (home.lane.name, "c", place)) for place in range(3)
    ]
    assert [put.options["timeout"] for put in children] == [60, 60, 60]
    assert children[0].lane == children[2].lane != children[1].lane
    assert all(put.record.task is None for put in children)


def test_a_list_over_lanes_that_are_full() -> None:
    """Is refused whole."""
    stargate, lanes, task = make_stargate(stargate_lanes=16, stargate_max_backlog=5)
    messages = [("a", "0"), ("b", "1"), ("a", "2")]
    second = prepare(stargate.settings, messages, "c").parts[0].lane
    lanes.backlogs[second.name] = 4
    with pytest.raises(LaneFull) as caught:
        task.delay(messages)
    assert caught.value.lane == second.name
    assert lanes.puts == []
    lanes.backlogs[second.name] = 3
    task.delay(messages)
    assert len(lanes.puts) == 4


def test_only_what_differs_is_told() -> None:
    """A worker that does not know a topic's options gets them with the lane."""
    stargate, lanes, _ = make_stargate(
        stargate_topics={"fast": {"topic": "fast", "max_in_flight": 7}}
    )
    on_ack = stargate.app.signature("shop.ship")
    stargate.produce("a", on_ack=on_ack)
    stargate.produce("a", topic="fast", on_ack=on_ack)
    assert [put.options["options"] for put in lanes.puts] == [{}, {"max_in_flight": 7}]
