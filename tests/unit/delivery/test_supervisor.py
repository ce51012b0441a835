"""Lanes are shared among the workers, handed over, and given back."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import ResponseError

from celery_stargate import observers
from celery_stargate.delivery.demand import Demand
from celery_stargate.delivery.log_reader import NewerRecord
from celery_stargate.delivery.owner import LaneOwner
from celery_stargate.delivery.shared import Services
from celery_stargate.delivery.supervisor import Supervisor
from celery_stargate.delivery.watcher import Watcher
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.leased import LeasedLane
from celery_stargate.lanes.registry import Registry, RegistryKeys
from celery_stargate.lanes.scripts import lane_keys
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.settings import Settings
from celery_stargate.observers import LaneTakenOver, Observer
from celery_stargate.pulsar.link import LinkBroken
from celery_stargate.support.log import package_logger as logger
from tests.simulation.effects import EffectsThread
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.plan import Plan
from tests.simulation.redis_server import SimulatedRedis
from tests.simulation.world import World
from tests.unit.helpers import TOPIC

LANES = [Lane(TOPIC, index) for index in range(5)]


class _Nowhere:
    """A producer that never opens."""

    descriptor = None

    async def open(self) -> None:
        raise LinkBroken("there is no Pulsar here")

    async def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class _Producers:
    """Make producers that never open, and note with which options."""

    def __init__(self, options: list[ProducerOptions]) -> None:
        self._options = options

    def make(self, topic: Any, options: ProducerOptions, query: Any) -> _Nowhere:
        self._options.append(options)
        return _Nowhere()

    async def require_deduplication(self, topic: Any, options: ProducerOptions) -> None:
        pass


class Rig:
    """Supervisors over one simulated Redis, without faults."""

    def __init__(self) -> None:
        plan = Plan.draw(0)
        plan.rates, plan.latency = {}, 0.001
        self.world = World(plan)
        self.loop: VirtualLoop = self.world.loop
        self.settings = Settings(prefix="p", lease=3.0, drain_timeout=1.0)
        self.registry = RegistryKeys("p")
        self.made: dict[str, list[ProducerOptions]] = {}

    def announce(self, *lanes: Lane) -> None:
        """Make lanes known."""
        keys = [self.registry.key("lanes"), self.registry.key("events")]
        for lane in lanes:
            self.world.redis.model.registry("announce", keys, [lane.name])

    def put(self, lane: Lane, timeout_ms: int = 60_000) -> None:
        """Put a message, the lane's first one."""
        keys = lane_keys("p", lane, "t", listed=True)
        put: list[str | int] = ["t:1", "c", "{}", timeout_ms, 0, 0, 60_000, "f", "c", "frame"]
        self.world.redis.model.script("put", keys, [*put, "", lane.name])

    def supervisor(
        self, name: str, redis: SimulatedRedis | None = None, demand: Demand | None = None
    ) -> Supervisor:
        """Start a supervisor in a process of its own."""
        process = Process(self.loop, name)
        options = self.made.setdefault(name, [])

        services = Services(
            producers=cast("Any", _Producers(options)),
            effects=cast("Any", None),
            thread=lambda stage: EffectsThread(lambda: 0.0),
            revoked=lambda context: False,
            demand=demand,
        )
        made: list[Supervisor] = []

        async def run() -> None:
            client = redis or SimulatedRedis(self.world, self.world.redis, process)
            blocking = SimulatedRedis(self.world, self.world.redis, process)
            supervisor = Supervisor(
                self.settings,
                cast("Any", client),
                cast("Any", blocking),
                services,
                name=name,
                rng=self.world.random,
                monotonic=self.loop.time,
            )
            made.append(supervisor)
            await supervisor.run()

        task = process.start(run())
        self.until(lambda: bool(made) or task.done())
        return made[0]

    def until(self, condition: Callable[[], bool], within: float = 30.0) -> None:
        """Let time pass until something is so."""
        assert self.loop.advance(condition, self.loop.now + within)

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.advance(lambda: False, self.loop.now + seconds)

    def owned(self, name: str) -> set[Lane]:
        """Return the lanes whose leases a supervisor holds."""
        return {lane for lane in [CONTEXTS_LANE, *LANES] if self.lease(lane) == name}

    def lease(self, lane: Lane) -> str | None:
        """Who holds a lane's lease."""
        held = self.world.redis.model.get(lane.key("p", "lease"))
        return None if held is None else held.decode().rpartition(":")[0]

    def workers(self) -> set[bytes]:
        """The workers that send heartbeats."""
        return set(self.world.redis.model.sorted_set(self.registry.key("workers")))

    def callers(self) -> set[bytes]:
        """The callers' processes that send heartbeats."""
        return set(self.world.redis.model.sorted_set(self.registry.key("callers")))


@pytest.fixture
def rig() -> Any:
    """A rig; nothing of it is left running."""
    rig = Rig()
    yield rig
    rig.world.over = True
    rig.loop.bury()
    rig.loop.close()


def test_one_owns_all_and_two_share(rig: Rig) -> None:
    """A second worker gets a fair share, and every lane has an owner then."""
    rig.announce(*LANES)
    rig.supervisor("one")
    rig.until(lambda: len(rig.owned("one")) == 6)
    rig.supervisor("two")
    rig.until(lambda: len(rig.owned("one")) == len(rig.owned("two")) == 3)
    rig.pass_time(20.0)
    assert len(rig.owned("one")) == len(rig.owned("two")) == 3


def test_no_worker_takes_more_than_its_share(rig: Rig) -> None:
    """A lane taken beyond it would be handed over at once: each has only one owner here."""
    rig.supervisor("one")
    rig.supervisor("two")
    rig.until(lambda: len(rig.workers()) == 2)
    rig.announce(*LANES)
    rig.until(lambda: len(rig.owned("one")) == len(rig.owned("two")) == 3)
    meta = [rig.world.redis.model.hash(lane.key("p", "meta")) for lane in LANES]
    assert [each[b"fencing_token"] for each in meta] == [b"1"] * len(LANES)


def test_a_new_lane_is_taken_at_once(rig: Rig) -> None:
    """Its announcement wakes the supervisor, long before a third of the lease."""
    rig.supervisor("one")
    rig.until(lambda: rig.owned("one") == {CONTEXTS_LANE})
    rig.pass_time(0.1)
    rig.announce(LANES[0])
    rig.world.redis.wake()
    rig.until(lambda: LANES[0] in rig.owned("one"), within=0.2)


def test_a_worker_that_leaves_gives_all_lanes_back_at_once(rig: Rig) -> None:
    """Its leases do not have to expire, and it no longer counts."""
    rig.announce(*LANES)
    leaver = rig.supervisor("one")
    rig.until(lambda: len(rig.owned("one")) == 6)
    rig.supervisor("two")
    rig.until(lambda: len(rig.owned("two")) == 3)
    leaver.stop(1.0)
    rig.until(lambda: len(rig.owned("two")) == 6, within=2.0)
    assert rig.workers() == {b"two"}


def test_it_waits_for_redis(rig: Rig) -> None:
    """It owns lanes as soon as Redis is available."""
    rig.world.redis.leave("refuses")
    rig.supervisor("one")
    rig.pass_time(5.0)
    assert rig.owned("one") == set()
    rig.world.redis.away = None
    rig.until(lambda: rig.owned("one") == {CONTEXTS_LANE}, within=2.0)


@pytest.mark.parametrize(
    ("left", "expected"),
    [('{"max_in_flight": 3}', 3), ('{"max_in_flight": "many"}', 1000), ("{", 1000), (None, 1000)],
)
def test_options_that_a_caller_left(rig: Rig, left: str | None, expected: int) -> None:
    """They are used if they are valid; else this worker's settings."""
    lane = LANES[0]
    if left is not None:
        rig.world.redis.model.hset(lane.key("p", "meta"), "options", left)
    rig.put(lane)
    rig.supervisor("one")
    rig.until(lambda: bool(rig.made["one"]))
    assert rig.made["one"][0].max_in_flight == expected


@pytest.mark.parametrize(
    ("memory", "warned"),
    [
        ({"maxmemory": 1000, "maxmemory_policy": "allkeys-lru"}, True),
        ({"maxmemory": 1000, "maxmemory_policy": "noeviction"}, False),
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, False),
        (None, False),
    ],
)
def test_a_redis_that_evicts(
    rig: Rig, caplog: pytest.LogCaptureFixture, memory: dict[str, Any] | None, warned: bool
) -> None:
    """It would evict pending messages; where INFO is not allowed, the supervisor goes on."""
    client = SimulatedRedis(rig.world, rig.world.redis, Process(rig.loop, "client"))

    async def info(section: str) -> dict[str, Any]:
        if memory is None:
            raise OSError("no permission")
        return memory

    client.info = info  # type: ignore[method-assign]
    with caplog.at_level("ERROR", logger.name):
        rig.supervisor("one", client)
        rig.until(lambda: rig.owned("one") == {CONTEXTS_LANE})
    assert ("noeviction" in caplog.text) is warned


def test_a_lane_whose_owner_failed_is_taken_again(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a second: at once would be a busy loop."""
    failures = [ValueError("broken on purpose")]
    run = "celery_stargate.delivery.supervisor.LaneOwner.run"
    began: list[float] = []

    async def fail_once(owner: Any) -> None:
        began.append(rig.loop.now)
        if failures:
            raise failures.pop()
        await rig.loop.create_future()

    monkeypatch.setattr(run, fail_once)
    rig.supervisor("one")
    rig.until(lambda: len(began) == 2)
    assert began[1] - began[0] >= 1.0
    assert "broken on purpose" in caplog.text


def test_a_lane_that_cannot_be_taken_is_set_aside(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a growing time, logged once; the others are owned, and it is when it can be."""
    tries: list[float] = []
    ill = [True]
    acquire = LeasedLane.acquire

    async def refuse(store: LeasedLane) -> bool:
        if store.lane == LANES[0] and ill[0]:
            tries.append(rig.loop.now)
            raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return await acquire(store)

    monkeypatch.setattr(LeasedLane, "acquire", refuse)
    rig.announce(*LANES)
    rig.supervisor("one")
    with caplog.at_level("ERROR", logger.name):
        rig.until(lambda: len(rig.owned("one")) == 5, within=1.0)
        rig.pass_time(600.0)
    assert len([each for each in caplog.records if "sets it aside" in each.message]) < 6
    assert 5 < len(tries) < 20
    assert tries[-1] - tries[-2] >= 60.0
    ill[0] = False
    rig.until(lambda: LANES[0] in rig.owned("one"), within=130.0)


def test_a_list_of_lanes_that_is_lost(rig: Rig) -> None:
    """The owners register their lanes again, and keep them."""
    rig.announce(*LANES)
    rig.supervisor("one")
    rig.until(lambda: len(rig.owned("one")) == 6)
    listed = rig.world.redis.model.sorted_set(rig.registry.key("lanes"))
    listed.clear()
    rig.until(lambda: len(listed) == 5, within=2.0)
    meta = [rig.world.redis.model.hash(lane.key("p", "meta")) for lane in LANES]
    assert [each[b"fencing_token"] for each in meta] == [b"1"] * len(LANES)
    assert len(rig.owned("one")) == 6


def test_a_lane_that_is_lost_while_nobody_owns_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is registered again if it holds anything; a retired one does not."""
    acquire = LeasedLane.acquire
    free, empty = LANES[0], LANES[1]

    async def refuse(store: LeasedLane) -> bool:
        return False if store.lane in (free, empty) else await acquire(store)

    monkeypatch.setattr(LeasedLane, "acquire", refuse)
    rig.world.redis.model.hset(free.key("p", "meta"), "last", 7)
    rig.announce(*LANES)
    rig.supervisor("one")
    rig.until(lambda: len(rig.owned("one")) == 4)
    listed = rig.world.redis.model.sorted_set(rig.registry.key("lanes"))
    listed.clear()
    rig.until(lambda: free.name.encode() in listed, within=3.0)
    rig.pass_time(5.0)
    assert set(listed) == {lane.name.encode() for lane in LANES if lane != empty}


def test_a_registry_that_cannot_be_read_takes_no_lane_away(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owners go on, and it is tried again."""
    rig.announce(*LANES)
    rig.supervisor("one")
    rig.until(lambda: len(rig.owned("one")) == 6)
    heartbeat = Registry.heartbeat

    async def refuse(*_: object) -> Any:
        raise ResponseError("ERR whatever it is")

    monkeypatch.setattr(Registry, "heartbeat", refuse)
    with caplog.at_level("ERROR", logger.name):
        rig.pass_time(30.0)
    assert len(rig.owned("one")) == 6
    assert caplog.text.count("whatever it is") == 1
    monkeypatch.setattr(Registry, "heartbeat", heartbeat)
    other = Lane(TOPIC, 77)
    rig.announce(other)
    rig.until(lambda: rig.lease(other) == "one", within=5.0)


def test_a_watcher_that_ended_is_started_again(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it no lane would hear of its messages."""
    began: list[float] = []

    async def end(watcher: Watcher) -> None:
        began.append(rig.loop.now)
        if len(began) < 3:
            raise MemoryError
        await rig.loop.create_future()

    monkeypatch.setattr(Watcher, "run", end)
    rig.supervisor("one")
    rig.until(lambda: len(began) == 3)
    assert rig.owned("one") == {CONTEXTS_LANE}


@pytest.mark.parametrize(
    "left",
    [
        *(b'{"compression_type": "\xff\xfe"}', b'{"lanes": 1e400}', b'{"lanes": NaN}', b"[1]"),
        *(b'{"encryption_keys": [[1]]}', b"[" * 100_000, b'{"topic": {"a": []}}', b"null", b""),
    ],
    ids=lambda left: repr(left[:20]),
)
def test_options_that_hold_anything(rig: Rig, left: bytes) -> None:
    """This worker's settings are used, and the lane goes on."""
    lane = LANES[0]
    rig.world.redis.model.hset(lane.key("p", "meta"), "options", cast("Any", left))
    rig.put(lane)
    rig.supervisor("one")
    rig.until(lambda: bool(rig.made["one"]))
    assert rig.made["one"][0].max_in_flight == 1000


def test_a_forked_child_closes_the_sockets(rig: Rig) -> None:
    """The descriptor number then leads to /dev/null; an owner may have no socket."""
    supervisor = rig.supervisor("one")
    reading, writing = os.pipe()
    owners = supervisor._owners  # noqa: SLF001
    owners[LANES[0]] = cast("Any", (SimpleNamespace(descriptor=writing), None))
    owners[LANES[1]] = cast("Any", (SimpleNamespace(descriptor=None), None))
    try:
        supervisor.close_inherited()
        assert os.write(writing, b"x") == 1
        # The pipe's other end is closed: nobody writes there any more.
        assert os.read(reading, 1) == b""
    finally:
        del owners[LANES[0]], owners[LANES[1]]
        os.close(reading)
        os.close(writing)


class TestCallers:
    """A process that is no worker, and owns lanes for its own calls."""

    def caller(self, rig: Rig, name: str = "caller", idle_after: float = 1000.0) -> Demand:
        """Start the supervisor of such a process."""
        demand = Demand(idle_after, monotonic=rig.loop.time)
        rig.supervisor(name, demand=demand)
        return demand

    def test_it_hands_all_lanes_to_a_worker_within_a_second(self, rig: Rig) -> None:
        """Whenever one comes; it hears of it, and ends then."""
        rig.announce(*LANES)
        demand = self.caller(rig)
        rig.until(lambda: len(rig.owned("caller")) == 6)
        assert rig.workers() == set()
        assert rig.callers() == {b"caller"}
        rig.supervisor("worker")
        rig.until(lambda: len(rig.owned("worker")) == 6, within=1.0)
        rig.until(lambda: not rig.callers())
        assert not demand.note()

    def test_a_worker_that_was_restarted_gets_all_lanes_back(self, rig: Rig) -> None:
        """Callers owned them meanwhile."""
        rig.announce(*LANES)
        first = rig.supervisor("first")
        rig.until(lambda: len(rig.owned("first")) == 6)
        first.stop(1.0)
        rig.until(lambda: not rig.workers())
        self.caller(rig)
        rig.until(lambda: len(rig.owned("caller")) == 6)
        rig.supervisor("second")
        rig.until(lambda: len(rig.owned("second")) == 6, within=1.0)

    def test_it_takes_none_where_a_worker_is_alive(self, rig: Rig) -> None:
        """And the worker's share is not smaller for it."""
        rig.supervisor("worker")
        rig.until(lambda: rig.workers() == {b"worker"})
        demand = self.caller(rig)
        rig.announce(*LANES)
        rig.until(lambda: len(rig.owned("worker")) == 6)
        meta = [rig.world.redis.model.hash(lane.key("p", "meta")) for lane in LANES]
        assert [each[b"fencing_token"] for each in meta] == [b"1"] * len(LANES)
        rig.until(lambda: not demand.note())

    def test_two_callers_share(self, rig: Rig) -> None:
        """As workers do."""
        rig.announce(*LANES)
        self.caller(rig, "one")
        self.caller(rig, "two")
        rig.until(lambda: len(rig.owned("one")) == len(rig.owned("two")) == 3)

    def test_it_ends_when_nothing_has_waited_for_long(self, rig: Rig) -> None:
        """Then nobody owns its lanes, and a call has to start another one."""
        rig.announce(*LANES)
        demand = self.caller(rig, idle_after=20.0)
        rig.until(lambda: len(rig.owned("caller")) == 6)
        rig.pass_time(15.0)
        assert demand.note()
        rig.pass_time(15.0)
        assert rig.callers() == {b"caller"}
        rig.until(lambda: not rig.callers() and not rig.owned("caller"))
        assert not demand.note()

    def test_it_does_not_end_while_a_message_waits(self, rig: Rig) -> None:
        """Pulsar is away: the message is put, and cannot be sent."""
        rig.put(LANES[0], timeout_ms=200_000)
        rig.announce(*LANES)
        demand = self.caller(rig, idle_after=10.0)
        rig.until(lambda: len(rig.owned("caller")) == 6)
        rig.pass_time(60.0)
        assert rig.callers() == {b"caller"}
        assert demand.note()


def test_a_lane_that_waits_for_a_newer_worker_is_given_back_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer worker takes it; after another error the lane is kept for a second."""
    for error, kept in ((NewerRecord(1), False), (ValueError(), True)):
        left: list[Exception] = [error]

        async def fail_once(owner: Any, left: list[Exception] = left) -> None:
            if left:
                raise left.pop()
            await rig.loop.create_future()

        monkeypatch.setattr("celery_stargate.delivery.supervisor.LaneOwner.run", fail_once)
        supervisor = rig.supervisor(type(error).__name__)
        rig.until(lambda left=left: not left)  # type: ignore[misc]
        rig.pass_time(0.3)
        assert (rig.lease(CONTEXTS_LANE) is not None) is kept
        supervisor.stop(0.0)
        rig.pass_time(5.0)


@pytest.mark.parametrize("observed", [True, False])
def test_a_lane_that_is_taken_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, observed: bool
) -> None:
    """If there is somebody to tell."""
    told: list[LaneTakenOver] = []

    class Noted(Observer):
        def taken_over(self, taken: LaneTakenOver) -> None:
            told.append(taken)

    monkeypatch.setattr(observers, "_observers", (Noted(),) if observed else ())
    rig.announce(LANES[0])
    rig.supervisor("one")
    rig.until(lambda: len(rig.owned("one")) == 2)
    rig.pass_time(0.1)
    assert {(each.lane, each.owner, each.fencing_token) for each in told} == (
        {(lane.name, "one", 1) for lane in (CONTEXTS_LANE, LANES[0])} if observed else set()
    )


def test_a_lane_that_is_handed_over_slowly(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is drained once, though the supervisor sees it beyond its share again and again."""
    drained: Counter[str] = Counter()

    async def slow(owner: LaneOwner, timeout: float) -> None:
        drained[owner.name] += 1
        await asyncio.sleep(5.0)
        await drain(owner, timeout)

    drain = LaneOwner.drain
    monkeypatch.setattr(LaneOwner, "drain", slow)
    rig.announce(*LANES)
    rig.supervisor("one")
    rig.until(lambda: len(rig.owned("one")) == 6)
    rig.supervisor("two")
    rig.until(lambda: len(rig.owned("two")) == 3)
    # Once more where it has ended and is about to be released: that changes nothing.
    assert len(drained) == 3
    assert max(drained.values()) <= 2


def test_lanes_of_a_shard_that_is_down_wait(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are taken; where there is one server, the whole look is tried again."""
    tried: list[int] = []

    async def refuse(self: Supervisor, lane: Lane) -> None:
        tried.append(lane.index)
        if lane.index == 1:
            raise LostConnection("down")

    supervisor = rig.supervisor("one")
    monkeypatch.setattr(Supervisor, "_try", refuse)
    buckets = {0: 0, 1: 1, 2: 1, 3: 2, 4: 0}
    registry = SimpleNamespace(
        silent={2},
        all_keys=[0, 1, 2],
        keys_of=lambda lane: SimpleNamespace(bucket=buckets[lane.index]),
    )
    monkeypatch.setattr(supervisor, "_registry", registry)
    asyncio.run(supervisor._take_free(LANES, 10))  # noqa: SLF001
    assert tried == [0, 1, 4]
    registry.all_keys, registry.silent = [0], set()
    with pytest.raises(LostConnection):
        asyncio.run(supervisor._take_free(LANES, 10))  # noqa: SLF001
