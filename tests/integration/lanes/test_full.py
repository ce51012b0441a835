"""A Redis that is full: it takes nothing new, and each other script still does its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis

from celery_stargate import StoreUnavailable
from celery_stargate.delivery.log_reader import LogReader
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.revocations import Revocations
from celery_stargate.model.dead_letters import DeadLetterBounds, DeadLetterRules
from celery_stargate.model.follow_up import ResultRow
from tests.integration.lanes.rig import Owner, failure, put, receipt
from tests.servers import redis as redis_module
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer
from tests.unit.delivery.rig import PartsRig

PREFIX = "full"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that may be full."""
    require(redis_module.missing_reason())
    with RedisServer(tmp_path_factory.mktemp("full")) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    """A plain client."""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 0)
        client.flushall()
        yield client


@pytest.fixture
def lanes(server: RedisServer) -> Outbox:
    """The callers' side."""
    return Outbox(Connections(server.url), PREFIX)


@pytest.fixture
def owner(server: RedisServer, client: redis.Redis, lane: Lane) -> Iterator[Owner]:
    """An owner that holds the lease, and whose scripts are known to the server."""
    owner = Owner(server.url, PREFIX, lane, "owner", 10.0)
    owner.do(owner.store.acquire())
    yield owner
    owner.close()


@pytest.fixture
def fill(client: redis.Redis) -> Callable[[], None]:
    """Let Redis be full from now on."""

    def fill() -> None:
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set(f"{PREFIX}:any", "value")

    return fill


def test_a_put_is_refused_whole(
    lanes: Outbox, lane: Lane, client: redis.Redis, fill: Callable[[], None]
) -> None:
    """Nothing of it is recorded."""
    put(lanes, lane, "a")
    before = client.dbsize()
    fill()
    for count in (1, 3):
        with pytest.raises(StoreUnavailable):
            put(lanes, lane, "b", count)
    assert client.hkeys(lane.key(PREFIX, "contexts")) == [b"a"]
    assert client.zrange(lane.key(PREFIX, "deadlines"), 0, -1) == [b"a"]
    assert client.dbsize() == before


def test_a_lane_is_taken(
    server: RedisServer, client: redis.Redis, lane: Lane, owner: Owner, fill: Callable[[], None]
) -> None:
    """By one who renews, and by one who takes over."""
    fill()
    assert owner.do(owner.store.acquire())
    assert owner.do(owner.store.tick())
    owner.do(owner.store.release())
    other = Owner(server.url, PREFIX, lane, "other", 10.0)
    assert other.do(other.store.acquire())
    other.close()


def test_a_lane_is_paused(
    lane: Lane, owner: Owner, client: redis.Redis, fill: Callable[[], None]
) -> None:
    """A policy may ask for that whatever Redis has room for."""
    token = owner.store.fencing_token
    fill()
    owner.do(owner.store.pause("a refusal", 30.0))
    held = client.get(lane.key(PREFIX, "lease"))
    assert held == f"paused by a refusal:{token + 1}".encode()


def test_a_reply_that_is_too_large_for_the_connection(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis
) -> None:
    """Redis closes the connection; less and less is asked for until it fits."""
    for number in range(12):
        lanes.put(lane, Record(f"c{number}"), [(f"c{number}", b"x" * (1 << 20))], timeout=60.0)

    async def read(large: bool) -> list[int]:
        rig = PartsRig()
        log = LogReader(replace(rig.lane, store=owner.store))
        found: list[int] = []
        while len(found) < 12:
            last = found[-1] if found else 0
            entries = await log.read_large(last, 32, 4 << 20) if large else []
            entries = entries or await log.read(last, 32, 4 << 20, mark=True)
            found += [each.number for each in entries]
        return found

    # What Redis holds beside a reply counts, too.
    client.config_set("client-output-buffer-limit", "normal 3mb 0 0")
    try:
        for large in (True, False):
            assert owner.do(read(large)) == list(range(1, 13))
    finally:
        client.config_set("client-output-buffer-limit", "normal 0 0 0")


@pytest.mark.parametrize("large", [False, True])
def test_a_lane_drains(
    lanes: Outbox,
    lane: Lane,
    owner: Owner,
    client: redis.Redis,
    fill: Callable[[], None],
    large: bool,
) -> None:
    """Messages are marked and sent, settled, and their contexts finished, tombstones and all."""
    for context in "abc":
        put(lanes, lane, context, tombstone=60.0)
    put(lanes, lane, "list", 2)
    fill()
    if large:
        entries = owner.read_large(0, 100, 1 << 20)
    else:
        entries = owner.do(owner.store.read(0, 100, 1 << 20, mark=True))
    assert len(entries) == 5
    assert owner.do(owner.store.progress()).sent == 5
    settled, late, _ = owner.settle(
        [
            ("a", -1, receipt("a")),
            ("b", -1, failure("b")),
            ("list", 0, receipt("list")),
            ("list", 1, receipt("list")),
        ],
        "token",
    )
    assert ([each.record.context for each in settled], late) == (["a", "b", "list"], frozenset())
    assert lanes.settle(lane, receipt("c"))[0] == "due"
    owner.finish("a", "b", "c", "list")
    assert client.hlen(lane.key(PREFIX, "contexts")) == 0
    assert client.zcard(lane.key(PREFIX, "tombstones")) == 3


def test_results_are_stored_with_what_is_settled(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, fill: Callable[[], None]
) -> None:
    """A result is less than the record and the message that go for it."""
    for context in "ab":
        put(lanes, lane, context, tombstone=60.0)
    fill()
    result = ResultRow(f"{PREFIX}:result", "value", 60)
    assert owner.complete(["a"], [("b", result)], "token") == (frozenset(), False)
    assert client.get(f"{PREFIX}:result") == b"value"
    assert client.hlen(lane.key(PREFIX, "contexts")) == 0


def test_deadlines_and_effects_go_on(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, fill: Callable[[], None]
) -> None:
    """What is overdue is settled; effects that nobody did are claimed, though it is only one."""
    put(lanes, lane, "overdue")
    client.zadd(lane.key(PREFIX, "deadlines"), {"overdue": 1})
    fill()
    assert [each.record.context for each in owner.do(owner.store.expire())] == ["overdue"]
    client.config_set("maxmemory", 0)
    client.zadd(lane.key(PREFIX, "due"), {"overdue": 1})
    fill()
    assert [each.record.context for each in owner.do(owner.store.due())] == ["overdue"]
    assert owner.do(owner.store.due()) == []


def test_dead_letters_above_a_lowered_bound_go(
    server: RedisServer, lane: Lane, client: redis.Redis, fill: Callable[[], None]
) -> None:
    """Though the call settles nothing: those past their age, and the oldest of the others."""

    def of(max_count: int) -> Outbox:
        bounds = DeadLetterBounds(max_count=max_count, max_age=1000.0)
        return Outbox(Connections(server.url), PREFIX, DeadLetterRules(bounds=bounds))

    for context in "abc":
        put(of(10), lane, context)
        client.zadd(lane.key(PREFIX, "deadlines"), {context: 1})
        of(10).expire(lane)
    client.zadd(lane.key(PREFIX, "dead"), {"b": 1})
    fill()
    assert of(1).expire(lane) == []
    assert client.zrange(lane.key(PREFIX, "dead"), 0, -1) == [b"c"]
    counts = client.hmget(lane.key(PREFIX, "dead_counts"), ["outdated", "evicted"])
    assert counts == [b"1", b"1"]


def test_what_cannot_be_sent_is_set_aside(
    lanes: Outbox, lane: Lane, owner: Owner, client: redis.Redis, fill: Callable[[], None]
) -> None:
    """The lane goes on behind it."""
    put(lanes, lane, "a")
    client.hdel(lane.key(PREFIX, "contexts"), "a")
    fill()
    assert owner.do(owner.store.set_aside([(1, "orphan")])) == 1
    assert lanes.backlog(lane) == 0


def test_calls_are_revoked(
    server: RedisServer, lanes: Outbox, lane: Lane, fill: Callable[[], None]
) -> None:
    """That makes room."""
    revocations = Revocations(Connections(server.url), PREFIX)
    put(lanes, lane, "a")
    # The script is known to the server then.
    assert revocations.revoke([lane], ["a"]).contexts == {"a"}
    put(lanes, lane, "b")
    fill()
    assert revocations.revoke([lane], ["b"]).contexts == {"b"}


def test_generations_begin(
    lanes: Outbox, lane: Lane, owner: Owner, fill: Callable[[], None]
) -> None:
    """A name that cannot be used any more is no reason to stand still."""
    put(lanes, lane, "a")
    owner.do(owner.store.read(0, 1, 1000, mark=True))
    before = owner.do(owner.store.progress()).generation
    fill()
    assert owner.do(owner.store.begin_generation(before)) != before
    assert owner.do(owner.store.progress()).tried == 0
