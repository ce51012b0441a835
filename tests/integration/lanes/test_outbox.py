"""``lanes/caller.py``: put, settle, expire and finish for a process that owns nothing."""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from celery_stargate import ContextInUse, LaneFull, Receipt, StoreUnavailable
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.inbox import new_inbox
from celery_stargate.lanes.lane import CONTEXTS, Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.puts import AskedPut
from celery_stargate.lanes.record import Record, encode_outcome, encode_record
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.lanes.scripts import lane_keys
from celery_stargate.lanes.wire import decode_call
from celery_stargate.model.follow_up import PRODUCE, FollowUp
from celery_stargate.model.outcome import Failure, Outcome
from celery_stargate.model.outcomes import CallOutcomes
from celery_stargate.support.bound import bounded
from tests.integration.lanes.rig import (
    MakeOwner,
    Owner,
    failure,
    finish,
    inbox_key,
    put,
    put_in_loop,
    receipt,
)
from tests.integration.rig import Proxy, elapsed, wait_for
from tests.servers import redis as redis_module
from tests.servers.fixtures import ServerAddress, require
from tests.servers.redis import RedisServer
from tests.topology import Topology, flush_scripts, single_server

CONTEXTS_LANE = Lane(CONTEXTS)


def contexts_of(owner: Owner) -> list[str]:
    """The contexts of the messages in the lane's log, in order."""
    entries = owner.do(owner.store.read(0, 1000, 1 << 30, mark=False))
    return [entry.context for entry in entries]


def frame_of(context: str, size: int = 0) -> bytes:
    """Return a frame of at least that many bytes."""
    bare = f'{{"payload":"","context":"{context}"}}'
    return bare.replace('""', f'"{"." * (size - len(bare))}"', 1).encode()


def put_many(lanes: Outbox, lane: Lane, count: int, *, size: int = 0) -> list[str]:
    """Put many contexts with one message each, and return their ids, which none had before."""
    contexts = [f"{lane.name[-8:]}-{uuid.uuid4().hex}-{number}" for number in range(count)]
    puts = [(lane, Record(each), frame_of(each, size)) for each in contexts]
    lanes.put_many(puts, timeout=60.0)
    return contexts


@pytest.mark.smoke
def test_messages_stand_in_the_log_in_the_order_of_their_put(
    lanes: Outbox, lane: Lane, owner: Owner
) -> None:
    """Numbers go up by one, across single messages and lists."""
    put(lanes, lane, "a")
    put(lanes, lane, "b", 3)
    put(lanes, lane, "c")
    entries = owner.do(owner.store.read(0, 100, 1 << 20, mark=False))
    assert [(each.number, each.label, each.place) for each in entries] == [
        (1, "a", -1),
        (2, "b\t0", 0),
        (3, "b\t1", 1),
        (4, "b\t2", 2),
        (5, "c", -1),
    ]
    assert [each.frame for each in entries][1] == b"frame b 0"


def test_a_message_has_the_mark_of_what_follows_it(
    lanes: Outbox, lane: Lane, owner: Owner, prefix: str
) -> None:
    """With the name of a task of one's own; a list has none, whatever follows it."""
    box = new_inbox(prefix, lane.bucket(prefix))
    request = '{"ignore_result": false}'
    records = [
        Record("quiet", on_error="{}"),
        Record("waited for", inbox=f"{box}/1"),
        Record("waited for, and more", inbox=f"{box}/1", on_ack="{}"),
        Record("called", task=PRODUCE, request=request),
        Record("own", task="shop.\u00f6", request=request),
    ]
    for record in records:
        lanes.put(lane, record, [("", frame_of(record.context))], timeout=60.0)
    put(lanes, lane, "list", 2)
    entries = owner.do(owner.store.read(0, 100, 1 << 20, mark=False))
    assert entries[1].inbox == f"{box}/1"
    assert [(each.follow_up, each.task) for each in entries] == [
        (FollowUp.NOTHING, PRODUCE),
        (FollowUp.WAITER, PRODUCE),
        (FollowUp.MORE, PRODUCE),
        (FollowUp.RESULT, PRODUCE),
        (FollowUp.RESULT, "shop.\u00f6"),
        (FollowUp.MORE, PRODUCE),
        (FollowUp.MORE, PRODUCE),
    ]


def test_many_have_their_marks_too(lanes: Outbox, lane: Lane, owner: Owner) -> None:
    """As if each were put by itself."""
    record = Record("own", task="shop.orders", request='{"ignore_result": true}')
    lanes.put_many([(lane, record, frame_of("own"))], timeout=60.0)
    [entry] = owner.do(owner.store.read(0, 100, 1 << 20, mark=False))
    assert (entry.label, entry.follow_up, entry.task) == ("own", FollowUp.IGNORED, "shop.orders")


@pytest.mark.smoke
def test_many_are_put_in_order_over_several_pipelines(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str
) -> None:
    """As if each were put by itself: a record, a deadline and a message of its own."""
    put(lanes, lane, "before")
    contexts = put_many(lanes, lane, 1101)
    put(lanes, lane, "after")
    entries = [
        entry
        for after in (0, 1000)
        for entry in owner.do(owner.store.read(after, 1000, 1 << 30, mark=False))
    ]
    assert [(each.number, each.label, each.place) for each in entries] == [
        (number, label, -1) for number, label in enumerate(["before", *contexts, "after"], 1)
    ]
    assert entries[700].frame == frame_of(contexts[699])
    assert {each.follow_up for each in entries} == {FollowUp.NOTHING}
    assert client.hlen(lane.key(prefix, "contexts")) == 1103
    assert client.zcard(lane.key(prefix, "deadlines")) == 1103


@single_server
def test_many_large_ones_go_in_pipelines_of_bounded_size(
    lanes: Outbox, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one pipeline, and one script, holds is bounded by bytes too; a larger one goes alone."""
    sizes = []
    plain = redis.client.Pipeline.execute

    def execute(self: Any, *args: Any, **options: Any) -> Any:
        sizes.append(len(self.command_stack) - 1)  # one loads the script
        return plain(self, *args, **options)

    monkeypatch.setattr(redis.client.Pipeline, "execute", execute)
    put_many(lanes, lane, 10, size=1 << 20)
    put_many(lanes, lane, 2, size=5 << 20)
    put_many(lanes, lane, 1001)
    assert sizes == [4, 4, 2, 1, 1, 5, 5, 1]


def test_many_go_to_a_redis_that_does_not_know_the_script(tmp_path: Path, lane: Lane) -> None:
    """One that was just started, or lost it on the way."""
    require(redis_module.missing_reason())
    with (
        RedisServer(tmp_path / "redis") as server,
        redis.Redis.from_url(server.url) as client,
    ):
        lanes = Outbox(Connections(server.url), "p")
        put_many(lanes, lane, 3)
        flush_scripts(client)
        put_many(lanes, lane, 3)
        assert client.xlen(lane.key("p", "log")) == 6


@pytest.mark.parametrize("script", ["put", "put_many"])
def test_a_put_whose_caller_is_gone_announces_its_lane(
    lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str, script: str
) -> None:
    """Redis ran it after it came back without the lane; no later message announces it again."""
    keys = lane_keys(prefix, lane, "gone", listed=True)
    *_, listed, events = keys
    meta = lane.key(prefix, "meta")

    def put_late(token: str, context: str) -> list[Any]:
        arguments: list[Any] = [token, 60_000, 0, 0, 60_000, context, "{}", "q", "frame"]
        if script == "put":
            arguments = [token, context, "{}", 60_000, 0, 0, 60_000, "q", "", "frame"]
        arguments += ('{"max_in_flight": 7}', lane.name)
        reply: list[Any] = lanes._scripts.run(script, keys, arguments)  # noqa: SLF001
        return reply

    assert put_late("gone:1", "a") == [b"new", 1]
    assert lanes.registry.survey()[1] == [lane]
    # The worker that it wakes reads them when it takes the lane.
    assert client.hget(meta, "options") == b'{"max_in_flight": 7}'
    announced: Any = client.xrange(events)
    assert [fields for _, fields in announced] == [{b"lane": lane.name.encode()}]
    # A repeat does so again; what comes later does not.
    client.delete(listed)
    assert put_late("gone:1", "a") == [b"new", 1]
    assert lanes.registry.survey()[1] == [lane]
    client.delete(listed)
    assert put_late("gone:2", "b") == [b"new", 2]
    assert lanes.registry.survey()[1] == []


@pytest.mark.parametrize(("topic", "listed"), [("t", True), (None, False)])
def test_a_context_whose_messages_are_elsewhere_announces_its_lane(
    lanes: Outbox, client: redis.Redis, prefix: str, topic: str | None, listed: bool
) -> None:
    """Its deadline is there; but for the lane of contexts without messages, which always exists."""
    lane = CONTEXTS_LANE if topic is None else Lane(f"persistent://public/default/{topic}")
    lanes.registry.announce(lane)
    *_, names, _ = lane_keys(prefix, lane, "me", listed=True)
    client.delete(names)
    messages = [("", b"")] * 2 if listed else []
    record = Record("list", is_list=True)
    asked = AskedPut(lane, record, messages, timeout=60.0, options={"max_in_flight": 7})
    keys = lane_keys(prefix, lane, "me", listed=True)
    reply: Any = lanes._scripts.run("put", keys, ["me:1", *asked.arguments(prefix)])  # noqa: SLF001
    assert reply == [b"new", -1]
    assert lanes.registry.survey()[1] == ([lane] if listed else [])
    assert client.hexists(lane.key(prefix, "meta"), "options") == listed


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("way", ["put", "many", "loop", "together"])
def test_a_list_of_lanes_that_is_none_refuses_no_put(
    lanes: Outbox,
    lane: Lane,
    client: redis.Redis,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    away: bool,
) -> None:
    """It is recorded whole, and its caller begins the list anew; or, if Redis is away, the next.

    In no case is it the call that fails: it is recorded.
    """
    lanes.registry.announce(lane)
    *_, listed, _ = lane_keys(prefix, lane, "me", listed=True)
    client.delete(listed)
    client.set(listed, "no list")
    scripts = lanes.registry._scripts  # noqa: SLF001
    run, healed = scripts.run, threading.Event()

    def noted(*given: Any) -> Any:
        try:
            if away and not healed.is_set():
                raise redis.exceptions.ConnectionError("away")
            return run(*given)
        finally:
            healed.set()

    monkeypatch.setattr(scripts, "run", noted)
    if way == "put":
        put(lanes, lane, "list", 2)
    elif way == "many":
        put_many(lanes, lane, 2)
    else:
        puts = [
            AskedPut(lane, Record(each), [("", frame_of(each))], 60.0, fresh=way == "together")
            for each in "ab"
        ]

        async def put_all() -> list[int]:
            outbox = lanes.in_loop()
            try:
                return await asyncio.gather(*(put_in_loop(outbox, each) for each in puts))
            finally:
                await outbox.aclose()

        assert asyncio.run(put_all()) == [1, 2]
    assert lanes.backlog(lane) == client.xlen(lane.key(prefix, "log")) == 2
    assert healed.wait(10)
    if away:
        wait_for(lambda: not lanes.registry.is_announced(lane))
        put(lanes, lane, "next")
    wait_for(lambda: client.type(listed) == b"zset")
    assert lanes.registry.survey()[1] == [lane]


def test_many_in_a_new_life_of_a_lane_announce_it(
    lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    """Redis lost the lane, and with it the word that there is one."""
    put_many(lanes, lane, 2)
    for key in list(client.scan_iter(f"{prefix.partition('{')[0]}*")):
        client.delete(key)
    assert lanes.registry.survey()[1] == []
    put_many(lanes, lane, 2)
    assert lanes.registry.survey()[1] == [lane]


def test_a_second_put_of_a_context_records_nothing(lanes: Outbox, lane: Lane, owner: Owner) -> None:
    """A redelivered Celery message puts its context again, and that is harmless."""
    put(lanes, lane, "a")
    put(lanes, lane, "a")
    assert contexts_of(owner) == ["a"]
    with pytest.raises(ContextInUse, match="'a' is already pending"):
        put(lanes, lane, "a", exclusive=True)
    assert contexts_of(owner) == ["a"]


def test_a_put_is_known_for_a_while_after_its_context_was_finished(
    lanes: Outbox, lane: Lane, owner: Owner
) -> None:
    """A tombstone outlives the context: the broker may deliver the Celery message again."""
    put(lanes, lane, "kept", tombstone=60.0)
    put(lanes, lane, "gone")
    for context in ("kept", "gone"):
        assert lanes.settle(lane, receipt(context))[0] == "due"
    finish(lanes, lane, "kept", "gone")
    put(lanes, lane, "kept")
    put(lanes, lane, "gone")
    assert contexts_of(owner) == ["gone"]


def test_a_tombstone_ends(lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str) -> None:
    """A tombstone that is over holds back nothing, and the next finish takes it away."""
    put(lanes, lane, "a", tombstone=0.001)
    lanes.settle(lane, receipt("a"))
    finish(lanes, lane, "a")
    key = lane.key(prefix, "tombstones")
    until = client.zscore(key, "a")
    assert until is not None

    def passed() -> bool:
        seconds, micros = client.time()
        return seconds * 1000 + micros / 1000 > until + 1

    wait_for(passed)
    put(lanes, lane, "a", exclusive=True)
    put(lanes, lane, "b")
    lanes.settle(lane, receipt("b"))
    finish(lanes, lane, "b")
    assert client.zcard(key) == 0


def test_tombstones_above_the_bound_are_forgotten(
    topology: Topology, prefix: str, lane: Lane, client: redis.Redis
) -> None:
    """Those that end first, at most 400 in a step; at the bound none is."""
    lanes, key = Outbox(Connections(topology.target), prefix), lane.key(prefix, "tombstones")
    seconds, _ = client.time()
    later = (seconds + 1000) * 1000

    def bury(context: str) -> int:
        finish(lanes, lane, context)
        return client.zcard(key)

    for context in "abc":
        put(lanes, lane, context, tombstone=10_000.0)
        lanes.settle(lane, receipt(context))
    client.zadd(key, {f"early {n}": later + n for n in range(99_999)})
    assert bury("a") == 100_000
    assert bury("b") == 100_000
    assert client.zmscore(key, ["early 0"]) == [None]
    assert None not in client.zmscore(key, ["early 1", "a", "b"])
    client.zadd(key, {f"more {n}": later for n in range(500)})
    assert bury("c") == 100_000 + 501 - 400


def test_a_finished_context_leaves_no_key_behind(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str
) -> None:
    """Whether single, list or failed: only the lease, the counters and an answer stay."""
    put(lanes, lane, "a")
    put(lanes, lane, "b", 3)
    put(lanes, lane, "c", 2)
    parts: list[tuple[str, int, Outcome]] = [("a", -1, receipt("a")), ("c", -1, failure("c"))]
    parts += [("b", place, receipt("b")) for place in range(3)]
    settled, late, fenced = owner.settle(parts, "t")
    assert (len(settled), late, fenced) == (3, frozenset(), False)
    owner.finish("a", "b", "c")
    left = {
        key.decode().rpartition(":")[2]
        for key in client.scan_iter(f"{prefix.partition('{')[0]}:*{lane.name}*")
        if b":answers:" not in key and client.type(key) != b"none"
    }
    # The stream itself stays: its last id keeps an old number from coming back.
    assert left == {"lease", "meta", "log"}
    assert client.xlen(lane.key(prefix, "log")) == 0


def test_max_backlog_bounds_the_log_and_nothing_of_the_call_is_recorded(
    lanes: Outbox, lane: Lane, owner: Owner
) -> None:
    """A list goes in whole or not at all; a settled message makes room."""
    put(lanes, lane, "a", max_backlog=3)
    with pytest.raises(LaneFull) as caught:
        put(lanes, lane, "b", 3, max_backlog=3)
    assert (caught.value.backlog, caught.value.limit) == (1, 3)
    put(lanes, lane, "c", 2, max_backlog=3)
    assert contexts_of(owner) == ["a", "c", "c"]
    assert lanes.backlog(lane) == 3
    lanes.settle(lane, receipt("a"))
    put(lanes, lane, "d", max_backlog=3)
    assert contexts_of(owner) == ["c", "c", "d"]


def test_a_known_context_is_no_reason_for_lane_full(lanes: Outbox, lane: Lane) -> None:
    """A redelivery must not fail because its first put filled the lane."""
    put(lanes, lane, "a", max_backlog=1)
    put(lanes, lane, "a", max_backlog=1)
    assert lanes.backlog(lane) == 1


@pytest.mark.smoke
def test_a_receipt_counts_from_anyone_once(lanes: Outbox, lane: Lane) -> None:
    """The second one is late, and so is one for a context that never was or is finished."""
    put(lanes, lane, "a")
    word, settled = lanes.settle(lane, receipt("a", 7))
    assert word == "due"
    assert settled is not None
    assert settled.result["entry_id"] == 7
    assert lanes.settle(lane, receipt("a", 8)) == ("late", None)
    finish(lanes, lane, "a")
    assert lanes.settle(lane, receipt("a")) == ("late", None)
    assert lanes.settle(lane, receipt("never")) == ("late", None)


def test_a_failure_of_a_message_does_not_count_from_just_anyone(lanes: Outbox, lane: Lane) -> None:
    """Only Pulsar's word to the lane's owner can refuse a message."""
    put(lanes, lane, "a")
    assert lanes.settle(lane, failure("a")) == ("ignored", None)
    assert lanes.settle(lane, receipt("a"))[0] == "due"


def test_a_failure_counts_for_a_context_without_a_message(lanes: Outbox) -> None:
    """Who acknowledges such a context may also say that it failed."""
    lanes.put(CONTEXTS_LANE, Record("x"), (), timeout=60)
    word, settled = lanes.settle(CONTEXTS_LANE, failure("x"))
    assert word == "due"
    assert settled is not None
    assert settled.failure == failure("x")


def test_a_list_is_settled_when_its_last_place_is(lanes: Outbox, lane: Lane) -> None:
    """In any order; a place settled twice counts once; places that are not there are late."""
    put(lanes, lane, "a", 3)
    assert lanes.settle(lane, receipt("a", 2), place=2)[0] == "part"
    assert lanes.settle(lane, receipt("a", 99), place=2)[0] == "part"
    assert lanes.settle(lane, receipt("a"), place=3)[0] == "late"
    assert lanes.settle(lane, receipt("a", 0), place=0)[0] == "part"
    word, settled = lanes.settle(lane, receipt("a", 1), place=1)
    assert word == "due"
    assert settled is not None
    assert [each["entry_id"] for each in settled.result] == [0, 1, 2]


def test_one_message_of_a_list_that_failed_fails_the_list_with_all_outcomes(
    lanes: Outbox, lane: Lane
) -> None:
    """The failure holds each message's outcome, in order."""
    put(lanes, lane, "a", 2)
    lanes.settle(lane, failure("a"), place=1, anyone=True)
    _, settled = lanes.settle(lane, receipt("a", 5), place=0, anyone=True)
    assert settled is not None
    assert settled.failed
    assert settled.failure.outcomes is not None
    assert [each.get("entry_id") for each in settled.failure.outcomes] == [5, None]
    assert settled.failure.status == "refused"
    assert settled.failure.reason.startswith("1 of 2 messages failed")


def test_past_its_deadline_a_message_that_was_never_sent_is_refused(
    lanes: Outbox, lane: Lane, owner: Owner
) -> None:
    """Any process may see to it; the message leaves the log, so that nothing sends it."""
    put(lanes, lane, "a", timeout=0.02)
    put(lanes, lane, "later")
    settled = wait_for(lambda: lanes.expire(lane), 5.0)
    assert [each.record.context for each in settled] == ["a"]
    assert (settled[0].failure.status, settled[0].failure.code) == ("refused", "deadline")
    assert settled[0].failure.topic == lane.topic
    assert contexts_of(owner) == ["later"]
    assert lanes.expire(lane) == []
    assert lanes.settle(lane, receipt("a")) == ("late", None)


def test_past_its_deadline_a_message_that_may_have_been_sent_is_unknown(
    lanes: Outbox, lane: Lane, owner: Owner
) -> None:
    """Read with the mark means that the owner may have sent it."""
    put(lanes, lane, "sent", timeout=0.05)
    put(lanes, lane, "waits", timeout=0.05)
    owner.do(owner.store.read(0, 1, 1 << 20, mark=True))
    settled = {}

    def both() -> bool:
        settled.update({each.record.context: each.failure for each in lanes.expire(lane)})
        return len(settled) == 2

    wait_for(both, 5.0)
    assert settled["sent"].status == "unknown"
    assert settled["waits"].status == "refused"


def test_past_its_deadline_a_list_tells_what_became_of_each_message(
    lanes: Outbox, lane: Lane, owner: Owner
) -> None:
    """One stored, one sent without a receipt, one never sent: unknown as a whole."""
    put(lanes, lane, "a", 3, timeout=0.1)
    owner.do(owner.store.read(0, 2, 1 << 20, mark=True))
    assert lanes.settle(lane, receipt("a", 4), place=0)[0] == "part"
    (settled,) = wait_for(lambda: lanes.expire(lane), 5.0)
    outcomes = settled.failure.outcomes
    assert outcomes[0]["entry_id"] == 4
    assert [each["status"] for each in outcomes[1:]] == ["unknown", "refused"]
    assert settled.failure.status == "unknown"
    assert settled.failure.reason.startswith("2 of 3 messages failed")
    assert contexts_of(owner) == []


def test_expire_of_one_context_leaves_the_others(lanes: Outbox, lane: Lane) -> None:
    """A waiter sees to its own."""
    put(lanes, lane, "a", timeout=0.01)
    put(lanes, lane, "b", timeout=0.01)
    (settled,) = wait_for(lambda: lanes.expire(lane, "b"), 5.0)
    assert settled.record.context == "b"
    assert lanes.expire(lane, "b") == []
    assert [each.record.context for each in lanes.expire(lane)] == ["a"]


def test_a_context_with_time_left_is_not_expired(lanes: Outbox, lane: Lane) -> None:
    """Not even when asked for by name."""
    put(lanes, lane, "a")
    assert lanes.expire(lane, "a") == []
    assert lanes.expire(lane) == []


def test_a_list_of_ten_thousand_is_recorded_settled_and_expired(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str
) -> None:
    """Lua unpacks some 8,000 values at most; a longer list must not end half-way."""
    count = 10_000
    put(lanes, lane, "late", count, timeout=0.3)
    assert lanes.backlog(lane) == count
    assert lanes.settle(lane, receipt("late"), place=count - 1)[0] == "part"
    (settled,) = wait_for(lambda: lanes.expire(lane), 5.0)
    assert len(settled.failure.outcomes) == count
    assert lanes.backlog(lane) == 0

    put(lanes, lane, "a", count)
    parts = [("a", place, receipt("a", place)) for place in range(count)]
    (found,), late, _ = owner.settle(parts, "t")
    assert not late
    assert [each["entry_id"] for each in found.result] == list(range(count))
    assert lanes.backlog(lane) == 0
    finish(lanes, lane, "a", "late")
    assert client.hlen(lane.key(prefix, "outcomes")) == 0


def test_names_that_look_like_a_lists_parts_do_not_meet_them(lanes: Outbox, lane: Lane) -> None:
    """A context may be any printable text, and so the name of a part of another one."""
    put(lanes, lane, "a", 2)
    put(lanes, lane, "a 0")
    put(lanes, lane, "a left")
    assert lanes.settle(lane, receipt("a", 1), place=0)[0] == "part"
    for context in ("a 0", "a left"):
        assert lanes.settle(lane, receipt(context))[0] == "due"
    assert lanes.settle(lane, receipt("a", 2), place=1)[0] == "due"


def test_a_record_of_another_version_is_left_alone(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str
) -> None:
    """Neither settled nor expired nor finished by those who cannot read it."""
    put(lanes, lane, "new")
    key = lane.key(prefix, "contexts")
    record: Any = client.hget(key, "new")
    newer = b"3" + record[1:]
    client.hset(key, "new", newer)
    client.zadd(lane.key(prefix, "deadlines"), {"new": 1})
    assert lanes.settle(lane, receipt("new")) == ("late", None)
    assert lanes.expire(lane) == []
    finish(lanes, lane, "new")
    assert client.hget(key, "new") == newer
    # Out of the way of the others, but not forgotten.
    deadline = client.zscore(lane.key(prefix, "deadlines"), "new")
    assert deadline is not None
    assert deadline > client.time()[0] * 1000
    assert contexts_of(owner) == []
    assert owner.store.unreadable == [(1, "newer")]


def test_scripts_are_loaded_again_after_they_were_flushed(
    lanes: Outbox, lane: Lane, client: redis.Redis, owner: Owner
) -> None:
    """A Redis that restarted knows no script."""
    put(lanes, lane, "a")
    flush_scripts(client)
    put(lanes, lane, "b")
    flush_scripts(client)
    assert contexts_of(owner) == ["a", "b"]
    flush_scripts(client)
    settled, _, _ = owner.settle([("a", -1, receipt("a"))], "t")
    assert [each.record.context for each in settled] == ["a"]
    flush_scripts(client)
    assert lanes.settle(lane, receipt("b"))[0] == "due"


def test_many_threads_put_at_once(lanes: Outbox, lane: Lane, owner: Owner) -> None:
    """Each thread's messages stand in its own order, and none is lost or doubled."""

    def work(name: int) -> None:
        for number in range(50):
            put(lanes, lane, f"{name}-{number:02}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    found = contexts_of(owner)
    assert len(found) == 400
    for name in range(8):
        own = [each for each in found if each.startswith(f"{name}-")]
        assert own == [f"{name}-{number:02}" for number in range(50)]


class TestLostAnswers:
    """redis-py repeats a command whose answer was lost; a repeat records and settles once."""

    @pytest.fixture
    def proxy(self, redis_server: ServerAddress) -> Iterator[Proxy]:
        port = urlsplit(redis_server.url).port
        assert port is not None
        with Proxy(port) as proxy:
            yield proxy

    @pytest.fixture
    def through(self, proxy: Proxy, redis_server: ServerAddress, prefix: str) -> Outbox:
        """Callers who reach Redis through the proxy."""
        return Outbox(
            Connections(f"redis://127.0.0.1:{proxy.port}{urlsplit(redis_server.url).path}"), prefix
        )

    def test_a_put_that_is_repeated_records_once(
        self, proxy: Proxy, through: Outbox, lane: Lane, owner: Owner
    ) -> None:
        """And the caller is not told that the context is in use: it was its own put."""
        put(through, lane, "warm up")
        proxy.lose_answer_to(lambda data: b"lost" in data)
        put(through, lane, "lost", exclusive=True)
        assert proxy.lost == 1
        assert contexts_of(owner) == ["warm up", "lost"]

    @pytest.mark.parametrize("many", [False, True])
    def test_a_put_that_is_repeated_tells_again_that_its_lane_is_in_no_list(
        self,
        proxy: Proxy,
        through: Outbox,
        lane: Lane,
        client: redis.Redis,
        prefix: str,
        many: bool,
    ) -> None:
        """Its caller then begins the list anew."""
        through.registry.announce(lane)
        *_, listed, _ = lane_keys(prefix, lane, "me", listed=True)
        client.set(listed, "no list")
        proxy.lose_answer_to(lambda data: b"lost" in data)
        if many:
            through.put_many([(lane, Record("lost"), frame_of("lost"))], timeout=60.0)
        else:
            put(through, lane, "lost")
        assert proxy.lost == 1
        assert through.registry.survey()[1] == [lane]

    def test_a_put_that_is_repeated_after_its_context_was_finished_records_once(
        self, proxy: Proxy, through: Outbox, lanes: Outbox, lane: Lane, owner: Owner
    ) -> None:
        """A fast owner may have settled and finished it before the repeat comes."""
        put(through, lane, "warm up")

        def settle_and_finish() -> None:
            assert lanes.settle(lane, receipt("fast"))[0] == "due"
            finish(lanes, lane, "fast")

        proxy.lose_answer_to(lambda data: b"fast" in data, settle_and_finish)
        put(through, lane, "fast", exclusive=True)
        assert proxy.lost == 1
        assert contexts_of(owner) == ["warm up"]

    def test_many_whose_answer_was_lost_in_the_middle_are_recorded_once_in_order(
        self, proxy: Proxy, through: Outbox, lane: Lane, owner: Owner, lanes: Outbox
    ) -> None:
        """Some had arrived, some not; a fast owner has even finished the first ones."""
        put_many(through, lane, 1)
        done: list[str] = []

        def settle_and_finish() -> None:
            # The first answer came: Redis may still be running the other scripts.
            wait_for(lambda: len(contexts_of(owner)) >= 4)
            done.extend(contexts_of(owner)[1:4])
            for context in done:
                assert lanes.settle(lane, receipt(context))[0] == "due"
            finish(lanes, lane, *done)

        proxy.lose_answer_to(lambda data: b"-200\r" in data, settle_and_finish)
        contexts = put_many(through, lane, 400)
        assert proxy.lost == 1
        assert done == contexts[:3]
        assert contexts_of(owner)[1:] == contexts[3:]

    def test_a_receipt_that_is_repeated_gets_the_first_answer(
        self, proxy: Proxy, through: Outbox, lane: Lane
    ) -> None:
        """Or its effects would be left to the grace time."""
        put(through, lane, "a")
        through.settle(lane, receipt("nobody"))
        proxy.lose_answer_to(lambda data: b'"context":"a"' in data)
        word, settled = through.settle(lane, receipt("a", 3))
        assert proxy.lost == 1
        assert word == "due"
        assert settled is not None
        assert settled.result["entry_id"] == 3


class TestAway:
    """A Redis that is away, slow or full."""

    def test_a_put_to_a_redis_that_is_away_fails_at_once(
        self, lane: Lane, prefix: str, refusing_port: int
    ) -> None:
        """Nobody listens there: bounded, and an error that says so."""
        nobody = Outbox(Connections(f"redis://127.0.0.1:{refusing_port}/0"), prefix)
        with elapsed() as seconds, pytest.raises(StoreUnavailable, match="does not answer"):
            put(nobody, lane, "a")
        assert seconds() < 5

    def test_many_say_how_many_are_recorded(self, lane: Lane, prefix: str, tmp_path: Path) -> None:
        """A Redis that is full refuses; what it took goes on. No payload is in the words."""
        require(redis_module.missing_reason())
        with (
            RedisServer(tmp_path / "redis") as server,
            redis.Redis.from_url(server.url) as client,
        ):
            lanes = Outbox(Connections(server.url), prefix)
            put(lanes, lane, "before")
            client.config_set("maxmemory", client.info("memory")["used_memory"] + (16 << 20))
            with pytest.raises(StoreUnavailable) as caught:
                put_many(lanes, lane, 20, size=1 << 20)
            client.config_set("maxmemory", 0)
            found = client.xlen(lane.key(prefix, "log")) - 1
        words = str(caught.value)
        said = re.search(r"; (\d+) of 20 messages are recorded and will be sent", words)
        # Four of them make a pipeline; what the last one got in is not told.
        assert said
        assert 4 <= int(said[1]) <= found < 20
        assert "...." not in words

    def test_a_put_to_a_frozen_redis_fails_in_bounded_time(
        self, lane: Lane, prefix: str, tmp_path: Path
    ) -> None:
        """Within the caller's time, and within 5 s where the caller gives none."""
        require(redis_module.missing_reason())
        with RedisServer(tmp_path / "redis") as server:
            lanes = Outbox(Connections(server.url), prefix)
            put(lanes, lane, "before")
            server.pause()
            try:
                with elapsed() as seconds, pytest.raises(StoreUnavailable), bounded(0.5):
                    put(lanes, lane, "frozen")
                assert seconds() < 4
                calls: list[Callable[[], object]] = [
                    lambda: put(lanes, lane, "frozen too"),
                    lambda: lanes.backlog(lane),
                    lambda: lanes.expire(lane),
                    lanes.registry.survey,
                ]
                with ThreadPoolExecutor(len(calls)) as threads, elapsed() as seconds:
                    for each in [threads.submit(call) for call in calls]:
                        assert isinstance(each.exception(), StoreUnavailable)
                assert seconds() < 8
            finally:
                server.resume()
            put(lanes, lane, "after")
            with redis.Redis.from_url(server.url) as client:
                found = client.xrange(lane.key(prefix, "log"))
            labels = [fields[b"l"] for _, fields in found]
            # Whether the frozen one was recorded is not known, and at most once.
            assert labels.count(b"frozen") <= 1
            assert [each for each in labels if b"frozen" not in each] == [b"before", b"after"]

    def test_a_full_redis_refuses_a_put_whole_and_lets_the_lane_drain(
        self, lane: Lane, prefix: str, tmp_path: Path
    ) -> None:
        """With ``noeviction`` nothing is half recorded; what is there can still be settled.

        Settling frees memory: were it refused too, a full Redis would stay full for ever.
        """
        require(redis_module.missing_reason())
        with (
            RedisServer(tmp_path / "redis") as server,
            redis.Redis.from_url(server.url) as client,
        ):
            lanes = Outbox(Connections(server.url), prefix)
            put(lanes, lane, "first")
            put(lanes, lane, "list", 3)
            owner = Owner(server.url, prefix, lane, "owner", 10.0)
            try:
                _fill_and_drain(lanes, lane, owner, client, prefix)
            finally:
                owner.close()


def _fill_and_drain(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, prefix: str
) -> None:
    client.config_set("maxmemory", 1)
    before = _snapshot(client, lane, prefix)
    with pytest.raises(StoreUnavailable, match="maxmemory"):
        put(lanes, lane, "refused", 5)
    assert _snapshot(client, lane, prefix) == before
    assert owner.do(owner.store.acquire())
    entries = owner.do(owner.store.read(0, 10, 1 << 20, mark=True))
    assert [each.context for each in entries] == ["first", "list", "list", "list"]
    parts = [(each.context, each.place, receipt(each.context)) for each in entries]
    settled, late, fenced = owner.settle(parts, "t")
    assert [each.record.context for each in settled] == ["first", "list"]
    assert (late, fenced) == (frozenset(), False)
    assert owner.do(owner.store.tick()).due == 2
    owner.finish("first", "list")
    client.config_set("maxmemory", 0)
    put(lanes, lane, "later")
    assert lanes.backlog(lane) == 1


def _snapshot(client: redis.Redis, lane: Lane, prefix: str) -> tuple[object, ...]:
    return (
        client.hgetall(lane.key(prefix, "contexts")),
        client.zrange(lane.key(prefix, "deadlines"), 0, -1),
        client.xrange(lane.key(prefix, "log")),
        client.hgetall(lane.key(prefix, "meta")),
    )


def test_survey_tells_the_living_workers_and_all_lanes(
    lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    """A worker whose time is over does not count."""
    assert lanes.registry.survey() == (0, [])
    put(lanes, lane, "a")
    seconds = client.time()[0]
    client.zadd(RegistryKeys(prefix).key("workers"), {"dead": (seconds - 1) * 1000})
    client.zadd(RegistryKeys(prefix).key("workers"), {"alive": (seconds + 60) * 1000})
    assert lanes.registry.survey() == (1, [lane])


def test_survey_leaves_out_what_is_no_lane(
    lanes: Outbox, lane: Lane, client: redis.Redis, prefix: str
) -> None:
    """A name that another version wrote must not stop every caller."""
    put(lanes, lane, "a")
    client.zadd(RegistryKeys(prefix).key("lanes"), {"of another version": 1, "x#y": 1})
    assert lanes.registry.survey() == (0, [lane])


def test_the_inbox_brings_outcomes_in_order_and_ends_by_itself(
    lanes: Outbox, client: redis.Redis
) -> None:
    """It has a time to live, for nobody may ever read it; what was dealt with is thrown away."""
    assert lanes.inboxes.subscribe("box", [], 0.05) == []
    calls = [CallOutcomes(each, is_list=False, outcomes=(receipt(each),)) for each in ("a", "b")]
    lanes.inboxes.notify("box/1", calls[0])
    lanes.inboxes.notify("box/2", calls[1])
    key = inbox_key(lanes, "box")
    assert 0 < client.ttl(key) <= 3600
    found = lanes.inboxes.subscribe("box", [], 1)
    told = [one for each in found for one in each.told]
    assert [address for address, _ in told] == ["box/1", "box/2"]
    assert [decode_call(wire) for _, wire in told] == calls
    # An answer that was lost is given again.
    assert lanes.inboxes.subscribe("box", [], 1) == found
    assert lanes.inboxes.subscribe("box", [found[0].entry], 1) == found[1:]
    assert lanes.inboxes.subscribe("box", [each.entry for each in found], 0.05) == []
    assert client.xlen(key) == 0


def test_a_receipt_whose_value_json_cannot_carry_settles_nothing(lanes: Outbox) -> None:
    """Told to the one who acknowledges."""
    lanes.put(CONTEXTS_LANE, Record("x"), (), timeout=60)
    with pytest.raises(TypeError):
        lanes.settle(CONTEXTS_LANE, Receipt(context="x", value=object()))
    assert lanes.settle(CONTEXTS_LANE, Failure(context="x"))[0] == "due"


def test_callers_of_two_processes_do_not_share_answers(
    redis_server: ServerAddress, prefix: str, lane: Lane, make_owner: MakeOwner
) -> None:
    """Tokens are of one caller: another one's put of a known context is not taken for a repeat."""
    one, two = (
        Outbox(Connections(redis_server.url), prefix),
        Outbox(Connections(redis_server.url), prefix),
    )
    put(one, lane, "a", exclusive=True)
    with pytest.raises(ContextInUse):
        put(two, lane, "a", exclusive=True)
    owner = make_owner()
    assert contexts_of(owner) == ["a"]


def test_room_in_several_lanes_is_reserved_in_all_or_in_none(lanes: Outbox, lane: Lane) -> None:
    """A call that finds one of them full takes no room from others in the meantime."""
    other = Lane(f"{lane.topic}-other")
    put(lanes, other, "there", 2)
    with pytest.raises(LaneFull) as caught:
        lanes.reserve({lane: 3, other: 2}, 3)
    assert (caught.value.lane, caught.value.backlog, caught.value.limit) == (other.name, 2, 3)
    room = lanes.reserve({lane: 3, other: 1}, 3)
    with pytest.raises(LaneFull):
        put(lanes, lane, "too much", max_backlog=3)
    for place in range(3):
        put(lanes, lane, f"c{place}", max_backlog=room)
    assert lanes.backlog(lane) == 3


class TestManyInOneStep:
    """The script ``put_many``, as ``produce_many`` and the calls of an event loop run it."""

    @pytest.fixture
    def put_some(self, lanes: Outbox, lane: Lane, prefix: str) -> Callable[..., tuple[str, int]]:
        """Put contexts by one run, as a new call each time; return its word and number."""
        keys = lane_keys(prefix, lane, "unit", listed=True)
        tokens = iter(range(1, 100))

        def put_some(*contexts: str, room: int | str = 0, tombstone: int = 0) -> tuple[str, int]:
            arguments: list[Any] = [f"unit:{next(tokens)}", 60_000, room, tombstone, 900_000]
            for each in contexts:
                arguments += (each, encode_record(Record(each)), "f", frame_of(each))
            arguments += ("", lane.name)
            word, number = lanes._scripts.run("put_many", keys, arguments)  # noqa: SLF001
            return bytes(word).decode(), int(number)

        return put_some

    def test_it_is_bounded(
        self, put_some: Callable[..., tuple[str, int]], lanes: Outbox, lane: Lane
    ) -> None:
        """All of a run or nothing; a lane of one message is bounded, too."""
        assert put_some("a", room=1) == ("new", 1)
        assert put_some("b", room=1) == ("full", 1)
        assert put_some("b", "c", "d", room=3) == ("full", 1)
        assert put_some("b", "c", room=3) == ("new", 2)
        assert lanes.backlog(lane) == 3

    def test_it_uses_the_room_of_its_call(
        self,
        put_some: Callable[..., tuple[str, int]],
        lanes: Outbox,
        lane: Lane,
        client: redis.Redis,
        prefix: str,
    ) -> None:
        """As much as it puts; when all is used, nothing is left of it."""
        room, key = lanes.reserve({lane: 10}, 10), lane.key(prefix, "reserved")
        assert put_some("a", "b", "c", "d", room=room) == ("new", 1)
        (left,) = client.hvals(key)
        assert left.split()[0] == b"6"
        assert put_some(*"efghij", room=room) == ("new", 5)
        assert client.hlen(key) == 0

    def test_it_knows_what_was_finished(
        self,
        put_some: Callable[..., tuple[str, int]],
        lanes: Outbox,
        lane: Lane,
        client: redis.Redis,
        prefix: str,
    ) -> None:
        """While the tombstone holds; and it forgets those that have ended."""
        assert put_some("a", tombstone=60_000) == ("new", 1)
        lanes.settle(lane, receipt("a"))
        finish(lanes, lane, "a")
        key = lane.key(prefix, "tombstones")
        client.zadd(key, {"ended long ago": 1})
        assert put_some("a", tombstone=60_000) == ("known", 0)
        assert client.zcard(key) == 2
        assert put_some("a", "b", tombstone=60_000) == ("new", 2)
        assert client.zrange(key, 0, -1) == [b"a"]
        assert lanes.backlog(lane) == 1


def test_a_copy_of_a_call_settles_nothing(
    lanes: Outbox, lane: Lane, owner: Owner, prefix: str
) -> None:
    """It was held up on its way: what it settled then is known, and the rest is another list's."""
    put(lanes, lane, "list", 4)
    keys = lane_keys(prefix, lane, "unit")

    def settle(token: str, *places: int) -> list[str]:
        arguments: list[Any] = ["", token, 15_000]
        for place in places:
            arguments += ("list", "", place, encode_outcome(receipt("list")), "ok")
        _, *answers = lanes._scripts.run("settle", keys, arguments)  # noqa: SLF001
        return [bytes(word).decode() for word, *_ in answers]

    assert settle("unit:1", 0) == ["part"]
    assert settle("unit:2", 1) == ["part"]
    assert settle("unit:1", 0) == ["part"]
    for places in ((2, 3), (2,), (4,), (-1,)):
        assert settle("unit:1", *places) == ["late"] * len(places)
    assert len(contexts_of(owner)) == 2
    assert settle("unit:3", 2, 3) == ["part", "due"]


def test_to_put_nothing(lanes: Outbox) -> None:
    """Is no error, and records nothing."""
    lanes.put_many([], timeout=60.0)
    lanes.put_many([], timeout=60.0, max_backlog=1)
    assert lanes.registry.survey() == (0, [])
