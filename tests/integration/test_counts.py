"""What a message costs Redis and the wire, counted: it does not depend on the machine's speed.

Round trips are writes of redis-py's connections: each command or pipeline is one. Commands are
those that Redis counts itself, in a Redis of the test's own. Each bound is what was counted, with
about 15 % of room; a change that passes one makes every message dearer, and says so here.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from celery import Celery

from celery_stargate import Acknowledger, Receipt, Stargate, produce_task
from celery_stargate.calls.prepare import prepare
from celery_stargate.delivery.renewals import Renewals
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import LeasedLane
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.scripts import lane_script
from celery_stargate.model.follow_up import FollowUp
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.rig import wait_for
from tests.servers import redis as redis_module
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer

PAYLOAD = "0123456789" * 10
COUNT = 1000
IDLE_LANES = 150
#: Seconds: no lease is renewed while messages drain, however slow the machine is.
LONG_LEASE = 120.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that counts for this test alone, and keeps a list of the commands it was sent."""
    require(redis_module.missing_reason())
    config = {"slowlog-log-slower-than": "0", "slowlog-max-len": "100000"}
    with RedisServer(tmp_path / "redis", config=config) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A client that looks."""
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def app(server: RedisServer, make_app: MakeApp) -> Celery:
    """An app on that Redis, and on no Pulsar."""
    return make_app("ws://127.0.0.1:1", **on(server))


def on(server: RedisServer, results: int = 0) -> dict[str, Any]:
    """Return the settings of an app whose broker, results and lanes are there.

    Arguments:
        results: the database of the results; the lanes' is 0.
    """
    backend = f"{server.url.rpartition('/')[0]}/{results}"
    return {"redis_url": server.url, "conf": {"broker_url": server.url, "result_backend": backend}}


def contexts_key(stargate: Stargate) -> str:
    """Return the key of the contexts of the default lane; it is gone with the last of them."""
    lane = prepare(stargate.settings, PAYLOAD, "c").parts[0].lane
    return lane.key(stargate.settings.prefix, "contexts")


class Counts:
    """What was counted in a block."""

    #: Commands by their names, those that a script calls too.
    commands: Counter[str]
    #: How often each lane script was run, by its name.
    scripts: Counter[str]
    #: Bytes that Redis was sent.
    received: int
    #: Commands and pipelines that redis-py's connections wrote, where they do not wait for loops.
    round_trips: int


#: What the count itself, and a connection's beginning, cost.
_OF_THE_RIG = {
    "info",
    "config",
    "config|resetstat",
    "slowlog|reset",
    "slowlog|get",
    "client|setinfo",
}


@contextmanager
def counted(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Count what a block does."""
    found = Counts()
    writes = 0
    plain: Any = redis.connection.Connection.send_packed_command

    def send(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal writes
        writes += 1
        return plain(self, *args, **options)

    # Celery's results of other tests unsubscribe when they go.
    gc.collect()
    client.config_resetstat()
    client.slowlog_reset()
    before = client.info("stats")["total_net_input_bytes"]
    with monkeypatch.context() as patched:
        patched.setattr(redis.connection.Connection, "send_packed_command", send)
        yield found
    found.round_trips = writes
    found.received = client.info("stats")["total_net_input_bytes"] - before
    stats = client.info("commandstats")
    found.commands = Counter(
        {
            name: each["calls"]
            for key, each in stats.items()
            if (name := key.removeprefix("cmdstat_")) not in _OF_THE_RIG
        }
    )
    names = {sha1(lane_script(name).encode()).hexdigest(): name for name in SCRIPTS}
    sent: Any = client.slowlog_get(100_000)
    found.scripts = Counter(
        names.get(words[1].decode(), "another")
        for words in (each["command"].split(b" ", 2) for each in sent)
        if words[0].upper() == b"EVALSHA"
    )


SCRIPTS = (
    *("put", "put_many", "read", "note", "settle", "complete", "finish"),
    *("tick", "due", "lease", "release", "expire"),
)


def test_a_call_is_one_round_trip(
    app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``delay()`` of which nobody waits for the result: one script."""
    task = Stargate.of(app).task("count.silent", ignore_result=True)
    task.delay(PAYLOAD)
    with counted(client, monkeypatch) as counts:
        for _ in range(100):
            task.delay(PAYLOAD)
    assert counts.round_trips == 100
    assert counts.scripts == {"put": 100}
    # get, hget, zscore; hincrby, hget, hset, zadd, xadd; set; time.
    assert counts.commands.total() - counts.commands["evalsha"] <= 100 * 10
    # The message stands in its frame, and nowhere else; Celery's headers are the most of it, then
    # the names of 13 keys.
    assert counts.received <= 100 * 2350


def test_a_call_with_a_result_waits_for_no_more(
    app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's Redis backend subscribes to the result when somebody waits for it, not before."""
    task = app.tasks[produce_task.name]
    kept = [task.delay(PAYLOAD)]
    with counted(client, monkeypatch) as counts:
        kept += [task.delay(PAYLOAD) for _ in range(100)]
    assert counts.scripts == {"put": 100}
    assert counts.commands["subscribe"] == 0
    assert counts.round_trips == 100


def test_a_list_is_one_round_trip(
    app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many messages it has; each costs one ``XADD`` more."""
    task = Stargate.of(app).task("count.lists", ignore_result=True)
    task.delay(PAYLOAD)
    with counted(client, monkeypatch) as counts:
        task.delay([PAYLOAD] * 100)
    assert counts.round_trips == 1
    assert counts.commands["xadd"] == 100
    assert counts.commands.total() <= 110
    assert counts.received <= 100 * 280 + 2600


def test_produce_many_is_a_round_trip_for_hundreds(
    app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline of 500 puts at most, 100 in each script."""
    stargate = Stargate.of(app)
    monkeypatch.setattr(stargate.runtime, "require_owner", lambda: None)
    alert = app.signature("count.alert")
    stargate.produce_many([PAYLOAD], on_error=alert)
    with counted(client, monkeypatch) as counts:
        stargate.produce_many([PAYLOAD] * COUNT, on_error=alert)
    assert counts.round_trips == 2
    assert counts.scripts == {"put_many": COUNT // 100}
    assert counts.commands["script|load"] == 2
    # hexists and xadd; the others once in each script.
    assert counts.commands.total() - counts.commands["evalsha"] <= COUNT * 2.2
    # The record, with the signature in it, and the frame.
    assert counts.received <= COUNT * 950


def test_a_drain(
    server: RedisServer,
    make_app: MakeApp,
    client: redis.Redis,
    local: LocalPulsar,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backlog goes in few reads, few settles and few finishes, whatever its size, where results
    are stored elsewhere.

    How many receipts there are when a batch is settled would hang on the machine's speed. So the
    first batch waits here until all receipts have come: those after it are full. And it waits until
    the owner has looked for what an earlier one left, which would find what is settled by then.
    """
    app = make_app(local.url, lease=LONG_LEASE, **on(server, results=1))
    stargate = Stargate.of(app)
    task: Any = app.tasks[produce_task.name]
    for _ in range(COUNT):
        result = task.apply_async((PAYLOAD,))
    acknowledger = Acknowledger(app)
    settle, tick = LeasedLane.settle, Renewals.tick
    taken_over: set[Any] = set()

    async def tick_after_taking_over(self: Renewals, store: LeasedLane) -> Any:
        taken_over.add(store.lane)
        return await tick(self, store)

    async def settle_when_all_are_here(self: LeasedLane, *args: Any, **options: Any) -> Any:
        supervisor: Any = acknowledger._delivery.supervisor  # noqa: SLF001
        owner, _ = supervisor._owners[self.lane]  # noqa: SLF001
        while owner.counters.receipts < COUNT or self.lane not in taken_over:  # noqa: ASYNC110  # a counter tells no event
            await asyncio.sleep(0)
        return await settle(self, *args, **options)

    monkeypatch.setattr(LeasedLane, "settle", settle_when_all_are_here)
    monkeypatch.setattr(Renewals, "tick", tick_after_taking_over)
    contexts = contexts_key(stargate)
    with counted(client, monkeypatch) as counts, acknowledger:
        wait_for(lambda: not client.exists(contexts), 60.0)
    assert local.payloads(topic) == [PAYLOAD.encode()] * COUNT
    assert result.get(timeout=20)["topic"] == topic
    scripts, commands = counts.scripts, counts.commands
    # Five full batches, beside the first one and what it left of a full one.
    assert scripts["settle"] <= COUNT // 200 + 2
    assert scripts["finish"] <= COUNT // 100 + 2
    assert scripts["put"] == 0
    # One to see that there is something, one for the whole window, and one that finds no more.
    assert scripts["read"] <= 5
    # A result is Celery's two commands; the leases are set, too.
    assert commands["set"] <= COUNT + 5
    assert commands["publish"] <= COUNT
    # settle: hget record, outcome; hset, zadd, zrem, xdel. finish: hget, zrem, hdel twice.
    assert commands["xdel"] == COUNT
    per_message = {"hget": 3, "hset": 1, "zadd": 1, "zrem": 2, "hdel": 2}
    for name, each in per_message.items():
        # Each script has a few of its own.
        assert commands[name] <= COUNT * each + 60, name
    # The test itself asks whether the contexts exist.
    others = set(per_message) | {"xdel", "set", "publish", "evalsha", "exists"}
    assert sum(count for name, count in commands.items() if name not in others) <= COUNT * 0.2
    # An outcome goes in, and a context's name to finish it; and the result, twice.
    assert counts.received <= COUNT * 1700


def test_large_messages_are_read_without_lua(
    server: RedisServer,
    make_app: MakeApp,
    client: redis.Redis,
    local: LocalPulsar,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But the first ones: Lua would hash each byte of them."""
    app = make_app(local.url, lease=LONG_LEASE, **on(server))
    stargate = Stargate.of(app)
    monkeypatch.setattr(stargate.runtime, "require_owner", lambda: None)
    payload = PAYLOAD * 1000
    stargate.produce_many([payload] * 100, on_error=app.signature("count.alert"))
    contexts = contexts_key(stargate)
    with counted(client, monkeypatch) as counts, Acknowledger(app):
        wait_for(lambda: not client.exists(contexts), 60.0)
    assert local.payloads(topic) == [payload.encode()] * 100
    # The first read takes up to 4 MiB, those after it up to 32 messages, as there is room in the
    # window; one finds no more.
    assert counts.scripts["note"] >= 2
    assert counts.scripts["read"] <= 5


@pytest.mark.parametrize(
    ("follow_up", "stored", "received"),
    # With a result: its key, and what is stored; that the server counts once.
    # Some 50 of these bytes are the texts of the scripts, which are loaded once.
    [(FollowUp.NOTHING, 0, 180), (FollowUp.IGNORED, 0, 180), (FollowUp.RESULT, COUNT, 780)],
)
def test_a_drain_of_what_is_done_at_once(
    server: RedisServer,
    make_app: MakeApp,
    client: redis.Redis,
    local: LocalPulsar,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
    follow_up: FollowUp,
    stored: int,
    received: int,
) -> None:
    """Each receipt is a context's name among 200, and three commands for all of these; a result is
    two more.

    The first batch waits for all receipts, as above.
    """
    app = make_app(local.url, lease=LONG_LEASE, **on(server))
    stargate = Stargate.of(app)
    monkeypatch.setattr(stargate.runtime, "require_owner", lambda: None)
    task: Any = app.tasks[produce_task.name]
    result: Any = None
    if follow_up is FollowUp.NOTHING:
        stargate.produce_many([PAYLOAD] * COUNT, on_error=app.signature("count.alert"))
    else:
        for _ in range(COUNT):
            ignored = follow_up is FollowUp.IGNORED
            result = task.apply_async((PAYLOAD,), ignore_result=ignored)
    acknowledger = Acknowledger(app)
    complete = LeasedLane.complete

    async def complete_when_all_are_here(self: LeasedLane, *args: Any) -> Any:
        supervisor: Any = acknowledger._delivery.supervisor  # noqa: SLF001
        owner, _ = supervisor._owners[self.lane]  # noqa: SLF001
        while owner.counters.receipts < COUNT:  # noqa: ASYNC110  # a counter tells no event
            await asyncio.sleep(0)
        return await complete(self, *args)

    monkeypatch.setattr(LeasedLane, "complete", complete_when_all_are_here)
    contexts = contexts_key(stargate)
    with counted(client, monkeypatch) as counts, acknowledger:
        wait_for(lambda: not client.exists(contexts), 60.0)
    assert local.payloads(topic) == [PAYLOAD.encode()] * COUNT
    scripts, commands = counts.scripts, counts.commands
    assert scripts["complete"] <= COUNT // 200 + 1
    assert scripts["read"] <= 5
    assert scripts["settle"] == scripts["finish"] == scripts["put_many"] == 0
    # The leases are set, too.
    assert stored <= commands["set"] <= stored + 5
    assert commands["publish"] == stored
    if stored:
        assert result.get(timeout=20)["topic"] == topic
    counted_apart = ("exists", "evalsha", "set", "publish")
    others = commands.total() - sum(commands[name] for name in counted_apart)
    # Entries are looked for in steps of 32.
    assert others <= COUNT * 0.2
    assert counts.received <= COUNT * received


def test_one_call_after_another_is_not_read(
    server: RedisServer,
    make_app: MakeApp,
    client: redis.Redis,
    local: LocalPulsar,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its put marks the message for the owner that waits for it: two scripts for a call."""
    app = make_app(local.url, lease=LONG_LEASE, **on(server))
    stargate = Stargate.of(app)
    with Acknowledger(app):
        for _ in range(2):
            stargate.produce(PAYLOAD)
        with counted(client, monkeypatch) as counts:
            for _ in range(100):
                stargate.produce(PAYLOAD)
    assert counts.scripts["put"] == counts.scripts["complete"] == 100
    assert counts.scripts["read"] == 0


def test_waiting_calls_are_told_together(
    server: RedisServer,
    make_app: MakeApp,
    client: redis.Redis,
    local: LocalPulsar,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the step that settles: no message is settled, told and finished by itself."""
    app = make_app(local.url, lease=LONG_LEASE, **on(server))
    stargate = Stargate.of(app)
    with Acknowledger(app):
        stargate.produce(PAYLOAD)
        with counted(client, monkeypatch) as counts:
            found = stargate.produce_many([PAYLOAD] * COUNT)
    assert len({each.message_id for each in found}) == COUNT
    scripts = counts.scripts
    assert scripts["settle"] == scripts["finish"] == 0
    # The messages, an entry of the inbox for each step, and the few that tell workers of a lane.
    assert counts.commands["xadd"] <= COUNT + scripts["complete"] + 10


def test_calls_of_one_loop_go_and_are_told_together(
    server: RedisServer,
    make_app: MakeApp,
    client: redis.Redis,
    local: LocalPulsar,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A script records a hundred of them; one entry of their inbox tells all that it settles."""
    app = make_app(local.url, lease=LONG_LEASE, **on(server))
    stargate = Stargate.of(app)

    async def calls(count: int) -> set[str | None]:
        found = await asyncio.gather(*(stargate.aproduce(PAYLOAD) for _ in range(count)))
        return {each.message_id for each in found}

    with Acknowledger(app):
        asyncio.run(calls(1))
        with counted(client, monkeypatch) as counts:
            assert len(asyncio.run(calls(200))) == 200
    scripts = counts.scripts
    assert scripts["put_many"] == 2
    assert scripts["put"] == scripts["settle"] == scripts["finish"] == 0
    # The messages, an entry of the inbox for each step, and the few that tell workers of a lane.
    assert counts.commands["xadd"] <= 200 + 2 * scripts["complete"] + 10
    assert counts.commands["expire"] <= scripts["complete"] + 10


def scripts_run(client: redis.Redis) -> int:
    """How many scripts Redis ran since the count began."""
    found: dict[str, Any] = client.info("commandstats").get("cmdstat_evalsha", {})
    return int(found.get("calls", 0))


def test_idle_lanes_are_renewed_together(
    app: Celery, client: redis.Redis, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round trip for up to 200 leases: what idles costs no round trip for each lane."""
    stargate = Stargate.of(app)
    lanes = [Lane(topic, index) for index in range(IDLE_LANES)]
    for lane in lanes:
        stargate.lanes.put(lane, Record("c"), [("c", b"{}")], timeout=60.0)
        _, done = stargate.lanes.settle(lane, Receipt(context="c", topic=topic))
        assert done is not None
        stargate.lanes.finish(lane, [done])
    leases = [lane.key(stargate.settings.prefix, "lease") for lane in lanes]
    sent = 0
    connection: Any = redis.asyncio.connection.AbstractConnection
    plain = connection.send_packed_command

    async def send(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal sent
        sent += 1
        return await plain(self, *args, **options)

    monkeypatch.setattr(connection, "send_packed_command", send)
    with Acknowledger(app):
        wait_for(lambda: client.exists(*leases) == IDLE_LANES)
        with counted(client, monkeypatch) as counts:
            sent = 0
            ticks = 5 * IDLE_LANES
            wait_for(lambda: scripts_run(client) >= ticks)
            round_trips = sent
    # Supervisor and watcher have a few of their own.
    assert counts.scripts["tick"] >= 4 * IDLE_LANES
    assert round_trips <= counts.scripts["tick"] * 0.1
    # redis-py has no connection for each at once, and they are given back all the same.
    assert client.exists(*leases) == 0


def test_one_frame_each(
    server: RedisServer, make_app: MakeApp, local: LocalPulsar, topic: str
) -> None:
    """What goes to Pulsar for each message, while nothing fails; the rest is pings."""
    stargate = Stargate.of(make_app(local.url, **on(server)))
    frames: list[Any] = []

    def note(frame: Any) -> bool:
        frames.append(frame)
        return False

    local.faults.fail_sends("never", when=note)
    alert = stargate.app.signature("count.alert")
    stargate.produce_many([PAYLOAD] * 50, on_error=alert)
    local.wait_for_messages(topic, 50)
    assert len(frames) == 50
    assert local.payloads(topic) == [PAYLOAD.encode()] * 50
