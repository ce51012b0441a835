"""Calls in event loops: with connections of the loop's own, on any loop, without threads."""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import uvloop
from celery import signature

from celery_stargate import (
    ConfigurationError,
    ContextInUse,
    InvalidMessage,
    LaneFull,
    Receipt,
    Stargate,
)
from celery_stargate.calls import eager
from celery_stargate.lanes.lane import Lane
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for
from tests.servers.fixtures import ServerAddress

RUN: dict[str, Callable[[Any], Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@pytest.fixture
def stargate(make_app: MakeApp, local: LocalPulsar) -> Iterator[Stargate]:
    """A Stargate of a process that owns its lanes."""
    made = Stargate.of(make_app(local.url, max_backlog=300))
    assert made.produce("first").status == "stored"
    yield made
    made.close()


@pytest.fixture
def client(redis_server: ServerAddress) -> Iterator[redis.Redis]:
    """Look into the Redis of the lanes."""
    with redis.Redis.from_url(redis_server.url) as made:
        yield made


@pytest.mark.parametrize("run", RUN.values(), ids=RUN)
def test_many_at_once_without_a_thread_for_each(
    stargate: Stargate, run: Callable[[Any], Any], recwarn: pytest.WarningsRecorder
) -> None:
    """On one loop after another; each closes its connections when it ends."""
    # What earlier tests left, such as loops that were only closed, is none of this one's.
    gc.collect()
    recwarn.clear()
    # All that the process has beside its loops is there after a first call in one.
    run(stargate.aproduce("x"))
    threads = threading.active_count()

    async def main() -> list[Receipt]:
        calls = asyncio.gather(*(stargate.aproduce(f"{number}") for number in range(200)))
        most = 0
        while not calls.done():
            most = max(most, threading.active_count())
            await asyncio.sleep(0.001)
        # One may announce the lane, or look for an owner.
        assert most <= threads + 2
        return list(await calls)

    for _ in range(2):
        found = run(main())
        assert len({each.message_id for each in found}) == 200
        assert stargate.runtime.loops._own() == {}  # noqa: SLF001
    gc.collect()
    assert [each for each in recwarn if issubclass(each.category, ResourceWarning)] == []


def test_a_loop_that_is_only_closed(stargate: Stargate, caplog: pytest.LogCaptureFixture) -> None:
    """No task is left in it, whoever made it; the next loop has connections of its own."""
    for _ in range(2):
        loop = asyncio.new_event_loop()
        try:
            assert loop.run_until_complete(stargate.aproduce("x")).status == "stored"
            assert asyncio.all_tasks(loop) == set()
        finally:
            loop.close()
    gc.collect()
    assert [each for each in caplog.records if each.name == "asyncio"] == []
    assert asyncio.run(stargate.aproduce("x")).status == "stored"


def inboxes_of(stargate: Stargate, client: redis.Redis) -> list[Any]:
    """The inboxes that Redis keeps."""
    return sorted(client.scan_iter(f"{stargate.runtime.settings.keyspace}*:inbox:*"))


def test_a_loop_that_ends_leaves_no_inbox(stargate: Stargate, client: redis.Redis) -> None:
    """One request after another, each in a loop of its own, would fill Redis."""
    of_threads = inboxes_of(stargate, client)
    assert len(of_threads) == 1
    for _ in range(3):
        asyncio.run(stargate.aproduce("x"))
    assert inboxes_of(stargate, client) == of_threads


def test_a_call_that_waits_keeps_its_inbox(
    stargate: Stargate, local: LocalPulsar, topic: str
) -> None:
    """Where the connections of its loop are closed meanwhile."""

    async def main() -> None:
        local.faults.hold_receipts()
        call = asyncio.create_task(stargate.aproduce("second"))
        await asyncio.to_thread(wait_for, lambda: local.payloads(topic)[-1:] == [b"second"])
        await stargate.aclose()
        local.faults.release_receipts()
        assert (await call).status == "stored"

    asyncio.run(main())


def test_a_loop_that_was_only_closed_has_its_inbox_deleted(
    stargate: Stargate, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a thread that the next loop starts, for it has no connection any more."""
    of_threads = inboxes_of(stargate, client)
    inboxes, forgotten = stargate.runtime.outbox.inboxes, threading.Event()
    forget = inboxes.forget

    def noted(names: Any) -> None:
        forget(names)
        forgotten.set()

    monkeypatch.setattr(inboxes, "forget", noted)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(stargate.aproduce("x"))
    loop.close()
    assert len(inboxes_of(stargate, client)) == len(of_threads) + 1
    asyncio.run(stargate.aproduce("x"))
    assert forgotten.wait(10)
    assert inboxes_of(stargate, client) == of_threads


def test_loops_in_several_threads(stargate: Stargate) -> None:
    """Each has its own, and a close of the Stargate closes them."""

    async def calls() -> int:
        found = await asyncio.gather(*(stargate.aproduce(f"{n}") for n in range(20)))
        stargate.close()
        found += await asyncio.gather(*(stargate.aproduce(f"{n}") for n in range(20)))
        await stargate.aclose()
        return len(found)

    done: list[int] = []
    threads = [threading.Thread(target=lambda: done.append(asyncio.run(calls()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert done == [40] * 3


def test_the_order_is_that_of_the_calls(stargate: Stargate, local: LocalPulsar, topic: str) -> None:
    """Those that begin at the same time are put in their order."""

    async def main() -> None:
        await asyncio.gather(*(stargate.aproduce(f"{number}") for number in range(100)))

    asyncio.run(main())
    assert local.payloads(topic) == [b"first", *(b"%d" % number for number in range(100))]


def test_there_is_room_for_some_of_those_that_are_put_together(
    make_app: MakeApp, local: LocalPulsar, topic: str
) -> None:
    """As if each were put by itself: the first ones are recorded, the others are refused."""
    stargate = Stargate.of(make_app(local.url, max_backlog=5))

    async def main() -> list[Any]:
        assert (await stargate.aproduce("first")).status == "stored"
        local.faults.hold_receipts()
        calls = [asyncio.ensure_future(stargate.aproduce(f"{n}")) for n in range(8)]
        await asyncio.wait(calls[5:], timeout=20)
        assert not any(each.done() for each in calls[:5])
        local.faults.release_receipts()
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(main())
    assert [type(each) for each in found] == [Receipt] * 5 + [LaneFull] * 3
    assert local.payloads(topic) == [b"first", *(b"%d" % number for number in range(5))]
    stargate.close()


GIVEN: list[dict[str, Any]] = [
    {"message": "text"},
    {"message": ("key", b"bytes")},
    {"message": ["one", "two"]},
    {"message": [f"{number}" for number in range(5)], "topic": "spread"},
    {"message": ("key", "x"), "topic": "spread"},
    {"message": "x", "context": "twice"},
    {"message": "x", "context": "used"},
    {"message": [f"{number}" for number in range(301)]},
    {"message": 5},
    {"message": "x", "timeout": 0},
]


@pytest.mark.parametrize("given", GIVEN, ids=[f"{number}" for number in range(len(GIVEN))])
def test_it_does_what_produce_does(
    make_app: MakeApp, local: LocalPulsar, given: dict[str, Any]
) -> None:
    """Receipts, and errors, of every shape; it is recorded in the same words."""
    topics = {"spread": {"topic": f"persistent://public/default/{uuid.uuid4().hex}", "lanes": 4}}
    stargate = Stargate.of(make_app(local.url, topics=topics, max_backlog=300))
    if given.get("context") == "used":
        local.faults.hold_receipts()
        stargate.produce("x", context="used", on_ack=stargate.app.signature("a"))

    def shape(call: Callable[[], Any]) -> Any:
        try:
            found = call()
        except (ContextInUse, InvalidMessage, LaneFull) as error:
            return type(error), str(error)
        several = found if isinstance(found, list) else [found]
        return isinstance(found, list), [(each.status, each.topic) for each in several]

    ours = shape(lambda: asyncio.run(stargate.aproduce(**given)))
    assert ours == shape(lambda: stargate.produce(**given))
    local.faults.release_receipts()
    stargate.close()


def test_celery_is_asked_once_in_each_step_of_a_loop(
    stargate: Stargate, local: LocalPulsar, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the app is eager; a call of a later step hears what changed."""
    asked: list[bool] = []
    plain = eager.is_eager

    def is_eager(runtime: Any) -> bool:
        asked.append(plain(runtime))
        return asked[-1]

    async def main() -> None:
        await stargate.aproduce("x")
        monkeypatch.setattr(eager, "is_eager", is_eager)
        await asyncio.gather(*(stargate.aproduce("x") for _ in range(50)))
        assert asked == [False]
        with pytest.raises(InvalidMessage):
            await stargate.aproduce(None)  # type: ignore[call-overload]
        stargate.app.conf.task_always_eager = True
        # In the step of the call that was refused.
        assert (await stargate.aproduce("eager")).status == "stored"
        assert asked == [False, False, True]

    asyncio.run(main())
    assert local.payloads(topic)[-1] == b"eager"


def test_an_app_becomes_eager_within_a_step_of_a_loop(
    stargate: Stargate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call after it is eager, though another one of that step was not."""
    eagerly: list[str] = []
    plain = eager.aproduce

    async def aproduce(runtime: Any, call: Any, options: Any) -> Any:
        eagerly.append(call.context)
        return await plain(runtime, call, options)

    monkeypatch.setattr(eager, "aproduce", aproduce)

    async def main() -> None:
        await stargate.aproduce("x")
        for name in ("task_always_eager", "CELERY_ALWAYS_EAGER"):
            durable = asyncio.ensure_future(stargate.aproduce("x"))
            await asyncio.sleep(0)
            setattr(stargate.app.conf, name, True)
            await stargate.aproduce("x", context=name)
            stargate.app.conf.pop(name)
            await durable

    asyncio.run(main())
    assert eagerly == ["task_always_eager", "CELERY_ALWAYS_EAGER"]


def test_a_cancelled_call_harms_no_other(stargate: Stargate, local: LocalPulsar) -> None:
    """The one that reads for all is cancelled, and one that is on its way into the lane."""

    async def main() -> None:
        local.faults.hold_receipts()
        calls = [asyncio.ensure_future(stargate.aproduce(f"{n}")) for n in range(20)]
        await asyncio.sleep(0.2)
        calls[0].cancel()
        late = asyncio.ensure_future(stargate.aproduce("late"))
        await asyncio.sleep(0)
        late.cancel()
        await asyncio.sleep(0.1)
        local.faults.release_receipts()
        assert {each.status for each in await asyncio.gather(*calls[1:])} == {"stored"}
        ended = await asyncio.gather(calls[0], late, return_exceptions=True)
        assert [type(each) for each in ended] == [asyncio.CancelledError] * 2

    asyncio.run(main())


@pytest.mark.parametrize("name", ["aproduce", "aproduce_many"])
def test_without_a_loop_of_asyncio(stargate: Stargate, topic: str, name: str) -> None:
    """As under trio: nothing is recorded, and the error says what to do."""
    call = getattr(stargate, name)(["a"], on_ack=signature("shop.paid"))
    with pytest.raises(ConfigurationError, match="trio"):
        call.send(None)
    assert stargate.lanes.backlog(Lane(topic)) == 0
    assert stargate.produce("b").status == "stored"
