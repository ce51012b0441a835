"""What is recorded in which lane: lists over lanes, and lanes that are full."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from celery_stargate import LaneFull, observers
from celery_stargate.calls import recording
from celery_stargate.calls.prepare import prepare
from celery_stargate.effects.signatures import NO_CALLBACKS
from celery_stargate.lanes.waiter import FirstNumber
from celery_stargate.observers import MessageRecorded, Observer
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


class Noted(Observer):
    """Notes what is told to be recorded."""

    def __init__(self) -> None:
        self.contexts: list[str] = []

    def recorded(self, calls: Sequence[MessageRecorded]) -> None:
        """Note it."""
        self.contexts += [each.context for each in calls]


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    """The only observer, for one test."""
    found = Noted()
    monkeypatch.setattr(observers, "_observers", (found,))
    return found


@pytest.fixture(params=[False, True], ids=["alone", "observed"])
def told(request: pytest.FixtureRequest, noted: Noted, monkeypatch: pytest.MonkeyPatch) -> Noted:
    """The same; or it is no observer, and there is none."""
    if not request.param:
        monkeypatch.setattr(observers, "_observers", ())
    return noted


def test_a_repeat_is_told_to_nobody(noted: Noted) -> None:
    """The call has its outcome: nothing was recorded, and of a list no message is sent again."""
    stargate, lanes, _ = make_stargate(stargate_lanes=16)
    recorder = stargate.runtime.recorder
    messages = [("a", "0"), ("b", "1"), ("a", "2")]
    calls = [
        prepare(stargate.settings, "x", "one"),
        prepare(stargate.settings, messages, "many"),
    ]
    for call in calls:
        recorder.put(call, call.record(NO_CALLBACKS), timeout=5.0)
    assert noted.contexts == ["one", "many"]
    puts: list[str] = []

    def known(lane: Any, record: Any, *_: Any, **options: Any) -> int:
        puts.append(record.context)
        return 0

    vars(lanes)["put"] = known
    for call in calls:
        recorder.put(call, call.record(NO_CALLBACKS), timeout=5.0)
    assert noted.contexts == ["one", "many"]
    assert puts == ["one", "many"]


def test_calls_of_an_event_loop(told: Noted) -> None:
    """One message goes through the loop's outbox; a list over lanes is recorded as elsewhere."""
    stargate, lanes, _ = make_stargate(stargate_lanes=16)
    recorder = stargate.runtime.recorder
    one = prepare(stargate.settings, "x", "one")
    many = prepare(stargate.settings, [("a", "0"), ("b", "1")], "many")

    async def main() -> None:
        outbox: Any = lanes.in_loop()
        for call in (one, many):
            number = FirstNumber()
            record = call.record(NO_CALLBACKS)
            await recorder.begin(outbox, call, record, number, timeout=5.0, bound=5.0)
            assert await number.wait() == 1

    asyncio.run(asyncio.wait_for(main(), 20))
    assert [each.record.context for each in lanes.puts] == ["one", "many", "many\t0", "many\t1"]
    assert all(each.options["exclusive"] for each in lanes.puts[:2])
    assert told.contexts == (["one", "many"] if observers.anybody() else [])


def test_each_call_is_told_of_in_its_own_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver reads the id of the request that called, whoever sends for all."""
    request: ContextVar[str] = ContextVar("request")
    seen: list[str] = []
    monkeypatch.setattr(recording, "_tell", lambda *_: seen.append(request.get()))
    monkeypatch.setattr(observers, "anybody", lambda: True)
    stargate, *_ = make_stargate()
    kept: list[FirstNumber] = []

    class Held:
        async def begin(self, asked: object, waiter: FirstNumber, seconds: float) -> None:
            kept.append(waiter)

    async def call(name: str) -> None:
        request.set(name)
        one, number = prepare(stargate.settings, "x", name), FirstNumber()
        outbox: Any = Held()
        record = one.record(NO_CALLBACKS)
        await stargate.runtime.recorder.begin(outbox, one, record, number, timeout=5.0, bound=5.0)
        await number.wait()

    async def main() -> None:
        calls = [asyncio.ensure_future(call(each)) for each in ("one", "two")]
        await asyncio.sleep(0)
        for each in kept:
            each.recorded(1)
        await asyncio.gather(*calls)

    asyncio.run(asyncio.wait_for(main(), 20))
    assert seen == ["one", "two"]


def test_many_calls_at_once(told: Noted) -> None:
    """Are told together, if there is somebody to tell."""
    stargate, lanes, _ = make_stargate()
    given: list[Any] = []
    vars(lanes)["put_many"] = lambda puts, **options: given.extend(puts)
    calls = [prepare(stargate.settings, "x", each) for each in ("a", "b")]
    records = [each.record(NO_CALLBACKS) for each in calls]
    stargate.runtime.recorder.put_many(calls, records, 5.0)
    assert [record.context for _, record, _ in given] == ["a", "b"]
    assert told.contexts == (["a", "b"] if observers.anybody() else [])
