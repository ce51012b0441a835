"""Which contexts are pending, and what is known of one."""

from __future__ import annotations

import time

import pytest
import redis

from celery_stargate import Receipt
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.operations.contexts import ContextInspector
from celery_stargate.operations.views import ContextState
from tests.integration.lanes.rig import MakeOwner, put, receipt


def fill(client: redis.Redis, lane: Lane, prefix: str, count: int) -> None:
    """Fill a lane fast, with what ``put_many`` writes."""
    for start in range(0, count, 5000):
        with client.pipeline(transaction=False) as pipeline:
            for n in range(start + 1, min(count, start + 5000) + 1):
                context = f"c{n:06}"
                record = f'1 {n} 1 0\n{{"context":"{context}"}}'
                pipeline.hset(lane.key(prefix, "contexts"), context, record)
                # A hundred of them have the same deadline, as puts in a pipeline do.
                deadline = (time.time() + 50 + n // 100) * 1000
                pipeline.zadd(lane.key(prefix, "deadlines"), {context: int(deadline)})
                pipeline.xadd(lane.key(prefix, "log"), {"q": "{}", "l": context}, id=f"{n}-0")
            pipeline.hset(lane.key(prefix, "meta"), mapping={"last": count})
            pipeline.execute()
    client.zadd(f"{prefix}:{{registry}}:lanes", {lane.name: time.time()})


def test_tells_the_state_of_each_context(
    contexts: ContextInspector,
    outbox: Outbox,
    lane: Lane,
    make_owner: MakeOwner,
    client: redis.Redis,
    prefix: str,
) -> None:
    for context in "abc":
        put(outbox, lane, context)
    owner = make_owner()
    owner.do(owner.store.read(0, 2, 1 << 20, mark=True))
    owner.do(owner.store.settle([("a", -1, receipt("a"))], "t"))
    outbox.put(CONTEXTS_LANE, Record("order-17"), [], timeout=60.0)
    put(outbox, lane, "later")
    client.hset(lane.key(prefix, "contexts"), "later", "9 of a later version\n{}")
    assert {view.context: view.state for view in contexts.pending()} == {
        "a": ContextState.SETTLED,
        "b": ContextState.SENT,
        "c": ContextState.UNSENT,
        "later": ContextState.UNREADABLE,
        "order-17": ContextState.OPEN,
    }
    for state in ContextState:
        assert {view.state for view in contexts.pending(state=state)} == {state}


def test_lists_the_next_deadline_first(
    contexts: ContextInspector, outbox: Outbox, lane: Lane
) -> None:
    for context, timeout in (("a", 50.0), ("b", 20.0), ("c", 40.0)):
        put(outbox, lane, context, timeout=timeout)
    found = list(contexts.pending())
    assert [view.context for view in found] == ["b", "c", "a"]
    assert found[0].deadline_seconds == pytest.approx(20.0, abs=1.0)
    assert found[0].age_seconds == pytest.approx(40.0, abs=1.0)


def test_chooses_by_topic_and_age(contexts: ContextInspector, outbox: Outbox, lane: Lane) -> None:
    other = Lane(f"{lane.topic}-other")
    put(outbox, lane, "old", timeout=30.0)
    put(outbox, lane, "new", timeout=60.0)
    put(outbox, other, "elsewhere", timeout=30.0)
    assert [view.context for view in contexts.pending(lane.topic, older_than=20.0)] == ["old"]
    assert [view.context for view in contexts.pending(other.topic)] == ["elsewhere"]


def test_lists_each_of_many_once_and_the_first_at_once(
    contexts: ContextInspector, client: redis.Redis, lane: Lane, prefix: str
) -> None:
    fill(client, lane, prefix, 10_000)
    found = [view.context for view in contexts.pending()]
    assert sorted(found) == [f"c{n:06}" for n in range(1, 10_001)]


def test_shows_one_context_whole(
    contexts: ContextInspector, outbox: Outbox, lane: Lane, make_owner: MakeOwner
) -> None:
    put(outbox, lane, "a")
    callback = '{"task":"shop.paid","args":["secret"],"kwargs":{},"options":{}}'
    outbox.put(
        lane,
        Record("b", task="shop.orders", on_ack=callback, inbox="inbox/1"),
        [("b", b"frame")],
        timeout=30.0,
    )
    make_owner("host-17")
    found = contexts.find("b")
    assert found is not None
    assert (found.lane, found.number, found.ahead) == (lane.name, 2, 1)
    assert (found.task, found.on_ack, found.on_error) == ("shop.orders", "shop.paid", None)
    assert found.waits
    assert found.owner == "host-17"
    assert found.outcomes == []
    assert contexts.find("nothere") is None


def test_shows_the_outcome_of_a_settled_context(
    contexts: ContextInspector, outbox: Outbox, lane: Lane
) -> None:
    put(outbox, lane, "a")
    outbox.settle(lane, Receipt(context="a", ledger_id=7, entry_id=3))
    found = contexts.find("a")
    assert found is not None
    assert found.state is ContextState.SETTLED
    assert found.deadline_seconds is None
    assert [(each["status"], each["ledger_id"]) for each in found.outcomes] == [("stored", 7)]


def test_shows_which_messages_of_a_list_have_an_outcome(
    contexts: ContextInspector, outbox: Outbox, lane: Lane
) -> None:
    put(outbox, lane, "a", count=3)
    outbox.settle(lane, Receipt(context="a", entry_id=5), place=1)
    found = contexts.find("a")
    assert found is not None
    assert found.messages == 3
    assert [(each["place"], each["entry_id"]) for each in found.outcomes] == [(1, 5)]
