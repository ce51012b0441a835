"""Lanes on a Redis Cluster: slots that move, masters that die, shards that are down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from celery_stargate import Acknowledger, ProduceTimeout, Receipt, Stargate, StoreUnavailable
from celery_stargate.contrib.django.lanes import memory_policy
from celery_stargate.lanes.connections import Connections, servers_of
from celery_stargate.lanes.lane import Lane, spread
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.model.buckets import in_buckets
from celery_stargate.operations.actions import Actions, Changed
from celery_stargate.operations.audit import Audit
from celery_stargate.operations.contexts import ContextInspector
from celery_stargate.operations.doctor.diagnosis import Diagnosis
from celery_stargate.operations.doctor.finding import Level
from celery_stargate.operations.doctor.peers import settings_here
from celery_stargate.operations.inspect import LaneInspector
from celery_stargate.operations.pausing import Pauses
from celery_stargate.operations.reading import LaneReader, configured_timeout
from celery_stargate.support.bound import bounded
from celery_stargate.testing import LocalPulsar
from tests.integration.conftest import MakeApp
from tests.integration.lanes.rig import put
from tests.integration.rig import elapsed, wait_for
from tests.servers import cluster as cluster_module
from tests.servers.cluster import ClusterServers
from tests.servers.fixtures import ServerAddress, require

LANES = 24
KEYSPACE = in_buckets("p", 16)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[ClusterServers]:
    """Three masters with a replica each."""
    require(cluster_module.missing_reason())
    with ClusterServers(tmp_path) as servers:
        yield servers


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    """The same, for tests that harm none of them."""
    require(cluster_module.missing_reason())
    with ClusterServers(tmp_path_factory.mktemp("cluster"), replicas=0) as servers:
        yield servers


def make(make_app: MakeApp, local: LocalPulsar, servers: ClusterServers, **settings: Any) -> Celery:
    """An app whose lanes are on a Cluster; its broker and its results are elsewhere."""
    return make_app(local.url, redis_url=servers.url, lanes=LANES, **settings)


def test_an_app_on_a_cluster(make_app: MakeApp, local: LocalPulsar, shared: ClusterServers) -> None:
    """Calls of each kind, callbacks, and contexts without a message."""
    app = make(make_app, local, shared)
    stargate = Stargate.of(app)
    task = app.tasks["celery_stargate.produce"]
    with Acknowledger(app) as acknowledger:
        assert task.delay("a").get(timeout=20)["status"] == "stored"
        assert len(task.delay([(f"k{n}", "x") for n in range(30)]).get(timeout=20)) == 30
        assert isinstance(stargate.produce("b", timeout=20), Receipt)
        assert len(stargate.produce_many(["c"] * 200, timeout=20)) == 200
        stargate.produce("d", on_ack=app.signature("callback"))
        future = acknowledger.produce("own", timeout=20)
        assert acknowledger.ack(Receipt(context="own"))
        assert future.result(timeout=20)
        late = acknowledger.produce("late", timeout=0.2)
        with pytest.raises(Exception, match="late"):
            late.result(timeout=20)


def test_a_caller_without_a_worker_owns_the_lanes_itself(
    make_app: MakeApp, local: LocalPulsar, shared: ClusterServers
) -> None:
    """As on a single server."""
    stargate = Stargate.of(make(make_app, local, shared))
    assert len(stargate.produce_many(["c"] * 100, timeout=20)) == 100


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_versions_of_redis_protocol(
    make_app: MakeApp, local: LocalPulsar, shared: ClusterServers, protocol: int
) -> None:
    """`protocol` reaches redis-py's client of the Cluster, and not only the pools of its nodes."""
    app = make(make_app, local, shared, redis_options={"protocol": protocol})
    assert isinstance(Stargate.of(app).produce("a", timeout=20), Receipt)


def lanes_of(servers: ClusterServers) -> list[Lane]:
    """Lanes of one topic; each master has some."""
    lanes = [Lane("persistent://public/default/t", index) for index in range(LANES)]
    masters = {servers.master_of(lane.key(KEYSPACE, "log")).port for lane in lanes}
    assert len(masters) == 3
    return lanes


def contexts_in(lanes: Outbox, lane: Lane) -> list[str]:
    """The contexts of a lane's messages, in their order."""
    client: Any = lanes._connections.sync()  # noqa: SLF001
    found = client.xrange(lane.key(KEYSPACE, "log"))
    return [fields[b"l"].decode() for _, fields in found]


def has(items: list[str], count: int) -> bool:
    """Whether a list has so many items."""
    return len(items) >= count


def test_calls_go_on_while_a_slot_moves(servers: ClusterServers) -> None:
    """To another master and to a new one: none is lost or comes twice, in their order."""
    lanes = Outbox(Connections(servers.url), KEYSPACE)
    moved = Lane("persistent://public/default/t", 0)
    key = moved.key(KEYSPACE, "log")
    put(lanes, moved, "first")
    done = threading.Event()
    recorded = ["first"]

    def call() -> None:
        number = 0
        while not done.is_set():
            put(lanes, moved, f"m{number}")
            recorded.append(f"m{number}")
            number += 1

    thread = threading.Thread(target=call)
    thread.start()
    try:
        source = servers.master_of(key)
        other = next(node for node in servers.masters() if node is not source)
        for target in (other, servers.add_master()):
            servers.move_slot(key, target)
            assert servers.master_of(key) is target
            reached = len(recorded) + 1
            wait_for(partial(has, recorded, reached))
    finally:
        done.set()
        thread.join()
    assert contexts_in(lanes, moved) == recorded
    lanes.close()


def test_an_app_goes_on_after_a_masters_death(
    make_app: MakeApp, local: LocalPulsar, servers: ClusterServers
) -> None:
    """The calls to its lanes wait for the replica that takes its place."""
    app = make(make_app, local, servers, lease=1.0, topic="persistent://public/default/t")
    stargate = Stargate.of(app)
    lanes = lanes_of(servers)
    with Acknowledger(app):
        for lane in lanes:
            assert stargate.produce(("k", "x"), topic=lane.topic, timeout=20).status == "stored"
        lost = servers.master_of(Lane(lanes[0].topic, 0).key(stargate.settings.keyspace, "log"))
        lost.kill()
        with elapsed() as seconds:
            missing = {str(number) for number in range(200)}
            while missing:
                for each in sorted(missing):
                    try:
                        assert stargate.produce((each, "x"), timeout=20).status == "stored"
                        missing.discard(each)
                    except StoreUnavailable:
                        assert seconds() < 60


def test_a_shard_that_is_down_holds_up_no_other(
    make_app: MakeApp, local: LocalPulsar, tmp_path: Path
) -> None:
    """Calls to its lanes end in their time, and say why; what it holds goes on when it is back."""
    require(cluster_module.missing_reason())
    with ClusterServers(tmp_path, replicas=0) as servers:
        app = make(make_app, local, servers, lease=4.0, topic="persistent://public/default/t")
        stargate = Stargate.of(app)
        keyspace = stargate.settings.keyspace
        lanes = lanes_of(servers)
        # Of the first slot, and so the one that redis-py asks first.
        dead = servers.master_of(RegistryKeys(keyspace).key("workers"))
        down = {lane for lane in lanes if servers.master_of(lane.key(keyspace, "log")) is dead}
        with Acknowledger(app):
            wait_for(stargate.lanes.registry.owners)
            for lane in lanes:
                call(stargate, lane)
            dead.kill()
            for lane in lanes:
                with elapsed() as seconds:
                    if lane in down:
                        with pytest.raises(StoreUnavailable, match="this shard .* is down"):
                            call(stargate, lane, 1.0)
                        assert seconds() < 4
                    else:
                        call(stargate, lane, 60.0)
            away = [each for each in Diagnosis(app).findings() if each.check == "redis-connection"]
            assert [each.found.partition(": ")[0] for each in away] == [f"127.0.0.1:{dead.port}"]
            assert "in the lanes of this shard" in away[0].why
            dead.start()
            for lane in down:
                wait_for(partial(succeeds, stargate, lane), 60.0)


def test_a_worker_that_begins_while_the_first_buckets_shard_is_down(
    make_app: MakeApp, local: LocalPulsar, tmp_path: Path
) -> None:
    """It takes the lanes of the others; processes that have ended are looked for there."""
    require(cluster_module.missing_reason())
    with ClusterServers(tmp_path, replicas=0) as servers:
        app = make(make_app, local, servers, topic="persistent://public/default/t")
        stargate = Stargate.of(app)
        keys = RegistryKeys(stargate.settings.keyspace)
        dead = servers.master_of(keys.key("workers"))
        up = next(
            lane
            for lane in lanes_of(servers)
            if servers.master_of(lane.key(stargate.settings.keyspace, "log")) is not dead
        )
        dead.kill()
        with Acknowledger(app):
            call(stargate, up, 60.0)


def call(stargate: Stargate, lane: Lane, timeout: float = 20.0) -> None:
    """Send a message through a lane."""
    key = next(str(number) for number in range(10_000) if spread(str(number), LANES) == lane.index)
    found: Any = stargate.produce((key, "x"), timeout=timeout)
    assert found.status == "stored"


def succeeds(stargate: Stargate, lane: Lane) -> bool:
    """Whether a message goes through a lane now."""
    try:
        call(stargate, lane, 5.0)
    except (StoreUnavailable, ProduceTimeout):
        return False
    return True


def test_the_url_of_a_cluster_for_a_single_server(redis_server: ServerAddress, prefix: str) -> None:
    """Is told at once."""
    url = redis_server.url.replace("redis://", "rediscluster://").rpartition("/")[0]
    lanes = Outbox(Connections(url), in_buckets(prefix, 16))
    with elapsed() as seconds, pytest.raises(StoreUnavailable, match="is no Redis Cluster .* use"):
        put(lanes, Lane("persistent://public/default/t"), "a")
    assert seconds() < 4


def test_the_url_of_a_single_server_for_a_node_of_a_cluster(shared: ClusterServers) -> None:
    """Is told: half of the lanes would work."""
    node = shared.nodes[0]
    lanes = Outbox(Connections(f"redis://127.0.0.1:{node.port}/0"), "p")
    with pytest.raises(StoreUnavailable, match="a node of a Redis Cluster.*rediscluster://"):
        for lane in lanes_of(shared):
            put(lanes, lane, "a")
    lanes.close()


def test_a_cluster_that_cannot_be_reached(refusing_port: int) -> None:
    """Within the bound of the call."""
    lanes = Outbox(Connections(f"rediscluster://127.0.0.1:{refusing_port}"), KEYSPACE)
    # Long enough for a busy machine to be refused.
    with elapsed() as seconds, bounded(3.0), pytest.raises(StoreUnavailable, match="refused"):
        put(lanes, Lane("persistent://public/default/t"), "a")
    assert seconds() < 9


def test_operators_see_and_change_all_buckets(make_app: MakeApp, shared: ClusterServers) -> None:
    """What `celery stargate` and the exporter show, and what operators do."""
    topic = "persistent://public/default/operated"
    app = make_app("ws://127.0.0.1:1", redis_url=shared.url, topic=topic, lanes=LANES)
    stargate = Stargate.of(app)
    keyspace = stargate.settings.keyspace
    lanes = [Lane(topic, index) for index in range(LANES)]
    for lane in lanes:
        put(stargate.lanes, lane, f"c{lane.index}")
    redis = stargate.runtime.connections.sync()
    reader = LaneReader(redis, keyspace, configured_timeout(stargate.settings))
    views, workers = LaneInspector(reader).lanes_and_workers(topic)
    assert {view.lane for view in views} == {lane.name for lane in lanes}
    assert (workers, sum(view.backlog for view in views)) == (0, LANES)
    contexts = ContextInspector(reader)
    assert {view.context for view in contexts.pending()} == {f"c{index}" for index in range(LANES)}
    pauses = Pauses(reader, keyspace)
    assert len(pauses.pause(topic, LANES, 60.0)) == LANES
    assert all(view.paused for view in LaneInspector(reader).lanes(topic))
    assert len(pauses.resume(topic, LANES)) == LANES
    actions = Actions(reader, stargate.lanes, stargate.runtime.effects, keyspace)
    change = actions.cancel("c7")
    assert (change.result, change.status) == (Changed.DONE, "refused")
    assert contexts.find("c7") is None
    assert Audit(redis, reader.registry).last(1)[0].what == "cancel"
    redis.zrem(reader.registry_of(lanes[3]).key("lanes"), lanes[3].name)
    assert list(reader.unregistered(1000)) == [lanes[3]]
    assert stargate.cancel("c8")


def test_the_doctor_examines_a_cluster(make_app: MakeApp, shared: ClusterServers) -> None:
    """And finds nothing that is wrong with reaching it, or with the rights."""
    app = make_app("ws://127.0.0.1:1", redis_url=shared.url)
    runtime = Stargate.of(app).runtime
    redis = runtime.connections.sync()
    # A worker that asks another node tells the same.
    told = {settings_here(runtime.settings, redis).redis_id for _ in range(20)}
    assert len(told) == 1 and None not in told
    name = max(servers_of(redis))
    server = servers_of(redis)[name]
    server.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = {each.check: each for each in Diagnosis(app).findings()}
        assert found["redis-eviction"].found.startswith(f"{name}: maxmemory-policy is allkeys-lru")
        assert memory_policy(Stargate.of(app)) == "allkeys-lru"
    finally:
        server.config_set("maxmemory-policy", "noeviction")
    found = {each.check: each for each in Diagnosis(app).findings()}
    assert found["redis-connection"].level is Level.OK
    assert found["redis-topology"].level is Level.OK
    assert found["redis-acl"].level is Level.OK
