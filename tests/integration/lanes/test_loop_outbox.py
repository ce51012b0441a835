"""``lanes/loop_outbox.py``: what the calls of one event loop put, in a real Redis."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from celery_stargate import ContextInUse, LaneFull, StoreUnavailable
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.inbox import new_inbox
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.loop_outbox import LoopOutbox
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.puts import AskedPut
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.scripts import AsyncScripts
from celery_stargate.lanes.target import parse_target
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.bound import bounded
from tests.faults.proxy import ToxicProxy
from tests.integration.lanes.rig import Owner, inbox_key, put_in_loop, receipt
from tests.topology import Topology, single_server


def asked(lane: Lane, context: str, size: int = 0, **given: Any) -> AskedPut:
    """One put of one message."""
    frame = b'{"payload":"%s","context":"%s"}' % (b"." * size, context.encode())
    return AskedPut(lane, Record(context), [("", frame)], timeout=60.0, **given)


async def at_once(outbox: LoopOutbox, puts: list[AskedPut]) -> list[Any]:
    """Put all at the same time; the results, or the errors."""
    calls: list[Coroutine[Any, Any, int]] = [put_in_loop(outbox, each) for each in puts]
    return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)


def run(lanes: Outbox, use: Any) -> Any:
    """Use the lanes from an event loop."""

    async def main() -> Any:
        outbox = lanes.in_loop()
        try:
            return await use(outbox)
        finally:
            await outbox.aclose()

    return asyncio.run(main())


def contexts_of(owner: Owner) -> list[str]:
    """The contexts in the lane's log, in order."""
    entries = owner.do(owner.store.read(0, 1000, 1 << 30, mark=False))
    return [each.context for each in entries]


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_put_at_the_same_time(lanes: Outbox, lane: Lane, owner: Owner, fresh: bool) -> None:
    """Has its numbers in the order of the calls, and the lane is announced once."""
    names = [f"c{place}" for place in range(130)]
    puts = [asked(lane, each, fresh=fresh) for each in names]
    assert run(lanes, lambda outbox: at_once(outbox, puts)) == list(range(1, 131))
    assert contexts_of(owner) == names
    assert lanes.registry.survey() == (0, [lane])


def test_large_messages_go_apart(lanes: Outbox, lane: Lane, owner: Owner) -> None:
    """One round trip has a bounded size; the order is kept all the same."""
    names = [f"c{place}" for place in range(4)]
    puts = [asked(lane, each, 600_000, fresh=True) for each in names]
    assert run(lanes, lambda outbox: at_once(outbox, puts)) == [1, 2, 3, 4]
    assert contexts_of(owner) == names


def test_a_lane_that_has_room_for_some(lanes: Outbox, lane: Lane, owner: Owner) -> None:
    """Takes the first of them; each of the others is told so, and none is recorded in part."""
    puts = [asked(lane, each, fresh=True, max_backlog=2) for each in "abc"]
    one, two, full = run(lanes, lambda outbox: at_once(outbox, puts))
    assert (one, two) == (1, 2)
    assert isinstance(full, LaneFull)
    assert (full.backlog, full.limit) == (2, 2)
    assert contexts_of(owner) == ["a", "b"]


def test_puts_of_different_kinds(lanes: Outbox, lane: Lane, owner: Owner) -> None:
    """A new context, a known one and one in another lane, at the same time: each has its answer."""
    other = Lane(f"{lane.topic}-other")

    async def use(outbox: LoopOutbox) -> list[Any]:
        await put_in_loop(outbox, asked(lane, "known"))
        puts = [
            asked(lane, "new", fresh=True),
            asked(lane, "known", exclusive=True),
            asked(other, "elsewhere", fresh=True),
            asked(lane, "newer", fresh=True),
        ]
        return await at_once(outbox, puts)

    new, known, elsewhere, newer = run(lanes, use)
    assert (new, elsewhere, newer) == (2, 1, 3)
    assert isinstance(known, ContextInUse)
    assert contexts_of(owner) == ["known", "new", "newer"]


def test_a_lane_that_redis_lost_is_announced_again(
    lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str, topology: Topology
) -> None:
    """With the options for a worker that does not know the topic: else nobody would send."""

    async def use(outbox: LoopOutbox) -> None:
        for context in ("a", "b"):
            await put_in_loop(outbox, asked(lane, context, options={"max_in_flight": 7}))
            topology.forget(prefix.partition("{")[0])
        await put_in_loop(outbox, asked(lane, "c", options={"max_in_flight": 7}))

    run(lanes, use)
    assert lanes.registry.survey() == (0, [lane])
    assert client.hget(lane.key(prefix, "meta"), "options") == b'{"max_in_flight": 7}'


def test_many_new_lanes_do_not_wait_for_one_another(
    lanes: Outbox, lane: Lane, client: redis.Redis
) -> None:
    """Each is announced once before its put, all at the same time, and by the put itself."""
    others = [Lane(f"{lane.topic}-{number}") for number in range(40)]
    puts = [asked(each, "c", fresh=True) for each in others]
    registry = lanes.registry
    announce, meanwhile = registry.announce, threading.Barrier(40)

    def noted(*given: Any, **options: Any) -> None:
        meanwhile.wait(10)
        announce(*given, **options)

    vars(registry)["announce"] = noted
    assert run(lanes, lambda outbox: at_once(outbox, puts)) == [1] * 40
    assert set(registry.survey()[1]) == set(others)


def test_a_call_that_was_given_up_is_not_recorded(lanes: Outbox, lane: Lane, owner: Owner) -> None:
    """If it had not begun yet; what was put after it is."""

    async def use(outbox: LoopOutbox) -> Any:
        await put_in_loop(outbox, asked(lane, "first"))
        calls = [asyncio.ensure_future(put_in_loop(outbox, asked(lane, each))) for each in "abc"]
        for _ in range(2):  # they wait for their round trip, which has not begun
            await asyncio.sleep(0)
        calls[1].cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    one, cancelled, three = run(lanes, use)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert contexts_of(owner)[:2] == ["first", "a"]
    assert contexts_of(owner)[-1] == "c"
    assert one < three


def test_no_time_is_left(lanes: Outbox, lane: Lane, owner: Owner) -> None:
    """It is told as of a Redis that does not answer, and not as the caller's own timeout."""

    async def use(outbox: LoopOutbox) -> None:
        await put_in_loop(outbox, asked(lane, "before"))
        with bounded(0.0), pytest.raises(StoreUnavailable, match="no answer in time"):
            await put_in_loop(outbox, asked(lane, "late"))
        await put_in_loop(outbox, asked(lane, "after"))

    run(lanes, use)
    assert [each for each in contexts_of(owner) if each != "late"] == ["before", "after"]


def test_an_inbox_that_is_no_stream_begins_anew(
    lanes: Outbox, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """As it does for a thread; what comes after that is read."""
    call = CallOutcomes("c", False, (receipt("c"),))

    async def use(outbox: LoopOutbox) -> list[Any]:
        client.set(inbox_key(lanes, "box"), "x")
        assert await outbox.subscribe("box", [], 0.05) == []
        lanes.inboxes.notify("box/1", call)
        return await outbox.subscribe("box", [], 5.0)

    assert [each.told[0][0] for each in run(lanes, use)] == ["box/1"]
    assert "begins anew" in caplog.text


def test_inboxes_that_nobody_reads_any_more(lanes: Outbox, client: redis.Redis) -> None:
    """Are deleted in one step, wherever they are."""
    call = CallOutcomes("c", False, (receipt("c"),))
    keyspace = lanes._prefix  # noqa: SLF001
    names = [new_inbox(keyspace, bucket) for bucket in range(2)]

    async def use(outbox: LoopOutbox) -> None:
        for name in names:
            lanes.inboxes.notify(f"{name}/1", call)
        await outbox.forget([*names, new_inbox(keyspace, 0)])

    run(lanes, use)
    assert [client.exists(inbox_key(lanes, each)) for each in names] == [0, 0]


def test_an_inbox_that_was_begun_anew_meanwhile_is_kept(
    lanes: Outbox, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner puts an outcome between the read that failed and the step that deletes."""
    call, heal = CallOutcomes("c", False, (receipt("c"),)), AsyncScripts.run

    async def told_first(scripts: AsyncScripts, *given: Any) -> Any:
        lanes.inboxes.notify("box/1", call)
        return await heal(scripts, *given)

    async def use(outbox: LoopOutbox) -> list[Any]:
        client.set(inbox_key(lanes, "box"), "x")
        monkeypatch.setattr(AsyncScripts, "run", told_first)
        assert await outbox.subscribe("box", [], 0.05) == []
        return await outbox.subscribe("box", [], 5.0)

    assert [each.told[0][0] for each in run(lanes, use)] == ["box/1"]


@single_server
def test_an_inbox_behind_a_slow_line(
    lanes: Outbox,
    client: redis.Redis,
    prefix: str,
    topology: Topology,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Entries that do not come together within the bound of an answer come one by one."""
    monkeypatch.setattr("celery_stargate.lanes.async_client.CALL_TIMEOUT", 0.5)
    addresses = [f"box/{number}" for number in range(10)]
    for each in addresses:
        client.xadd(inbox_key(lanes, "box"), {each: b"." * 100_000})

    async def use(outbox: LoopOutbox) -> list[str]:
        handled: list[str] = []
        found: list[str] = []
        for _ in range(30):
            with suppress(StoreUnavailable):
                entries = await outbox.subscribe("box", handled, 0.1)
                handled = [each.entry for each in entries]
                found += [address for each in entries for address, _ in each.told]
            if len(found) == len(addresses):
                break
        return found

    link = urlsplit(topology.url)
    with ToxicProxy(link.port or 0) as proxy:
        proxy.slices = (20_000, 0.04)
        target = parse_target(link._replace(netloc=f"{link.hostname}:{proxy.port}").geturl())
        assert run(Outbox(Connections(target), prefix), use) == addresses
