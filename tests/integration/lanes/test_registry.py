"""The registry's scripts, called in any order, in a real Redis and in the model of one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from celery_stargate.lanes import registry
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.registry import CallerRegistry, Registry, RegistryKeys
from celery_stargate.lanes.scripts import AsyncScripts, Run, Scripts, registry_script
from tests.integration.lanes.pair import UNIT
from tests.integration.lanes.profile import chosen_settings
from tests.servers.fixtures import ServerAddress
from tests.simulation.redis_model import RedisModel

#: Runs a call of the registry in an event loop.
Runner = Callable[[Callable[[Registry], Coroutine[Any, Any, Any]]], Any]
_LANES = ["a#0", "b#0", "c#1"]
LANE = st.sampled_from(_LANES)
WORKER = st.sampled_from(["one", "two", "three"])


class RegistryMachine(RuleBasedStateMachine):
    """Workers come and go, and lanes do.

    Arguments:
        url: of the Redis.
        prefix: what the keys begin with.
    """

    _examples = itertools.count()

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__()
        self.client = redis.Redis.from_url(url)
        keys = RegistryKeys(f"{prefix}-{next(self._examples)}")
        self.lanes, self.workers, self.events = map(keys.key, ("lanes", "workers", "events"))
        self.metas = {lane: f"{self.lanes}:{lane}:meta" for lane in _LANES}
        self.now = 0
        self.model = RedisModel(lambda: self.now)

    def teardown(self) -> None:
        """Leave nothing."""
        self.client.delete(self.lanes, self.workers, self.events, *self.metas.values())
        self.client.close()

    @rule(lane=LANE, options=st.sampled_from([None, "{}", '{"max_in_flight": 7}']))
    def announce(self, lane: str, options: str | None) -> None:
        """A new lane is told, a known one is not; and the options are left that are given."""
        known = self.client.zscore(self.lanes, lane) is not None
        keys, arguments = [self.lanes, self.events], [lane]
        if options is not None:
            keys, arguments = [self.metas[lane], *keys], [*arguments, options]
        assert self.call("announce", keys, *arguments) == (not known)

    @rule(worker=st.just("") | WORKER, ttl=st.sampled_from([0, UNIT, 3 * UNIT]))
    def heartbeat(self, worker: str, ttl: int) -> None:
        """Stay, leave, or only look."""
        alive, *_ = self.call("heartbeat", [self.workers, self.lanes], worker, ttl)
        if worker and ttl:
            assert alive >= 1

    @rule()
    def leap(self) -> None:
        """Time passes."""
        for key, unit in ((self.workers, UNIT), (self.lanes, UNIT // 1000)):
            for member, score in self.scores(key).items():
                self.client.zadd(key, {member: score - 2 * unit})
                self.model.sorted_set(key)[member] = score - 2 * unit

    @invariant()
    def agrees(self) -> None:
        """The same members are there, and the same was told."""
        for key in (self.workers, self.lanes):
            assert self.scores(key) == self.model.sorted_set(key)
        for key in self.metas.values():
            assert self.client.hgetall(key) == self.model.hash(key)
        told: Any = self.client.xrange(self.events)
        assert [fields for _, fields in told] == [
            fields for _, fields in self.model.xrange(self.events)
        ]

    def call(self, name: str, keys: list[str], *arguments: Any) -> Any:
        """Run a script in both; the model takes over the times of the real one."""
        self.now = began = self.time()
        real: Any = self.client.register_script(registry_script(name))(keys=keys, args=arguments)
        took = self.time() - began
        assert real == self.model.registry(name, keys, arguments)
        for key, unit in ((self.workers, 1), (self.lanes, 1000)):
            model = self.model.sorted_set(key)
            for member, score in self.scores(key).items():
                assert 0 <= score - model.get(member, 0) <= took // unit + unit // 1000
                model[member] = score
        return real

    def time(self) -> int:
        """The server's, in ms."""
        answer: Any = self.client.time()
        seconds, micros = answer
        return int(seconds) * 1000 + int(micros) // 1000

    def scores(self, key: str) -> dict[bytes, int]:
        """A sorted set."""
        members: Any = self.client.zrange(key, 0, -1, withscores=True)
        return {member: int(score) for member, score in members}


def test_the_registry_does_what_the_model_says(redis_server: ServerAddress, prefix: str) -> None:
    """Whatever is called, in whatever order."""
    make: Any = lambda: RegistryMachine(redis_server.url, prefix)  # noqa: E731
    run_state_machine_as_test(make, settings=chosen_settings(40, 30))


def test_commands_answer_as_redis_py_does(redis_server: ServerAddress, prefix: str) -> None:
    """What the code asks of Redis beside its scripts: the same, to the type."""
    stream, fields = f"{prefix}:stream", f"{prefix}:hash"
    with redis.Redis.from_url(redis_server.url) as real:
        model = RedisModel(lambda: 1000)
        both: tuple[Any, Any] = real, model
        ids = []
        for number in range(4):
            entry = {"w": number, "text": "é"}
            ids.append([each.xadd(stream, entry, maxlen=3, approximate=False) for each in both])
        names = {one: two for one, two in ids}  # noqa: C416  # pairs are lists

        def told(answer: Any) -> Any:
            """An answer with the model's ids in the place of the server's."""
            if isinstance(answer, list | tuple):
                return type(answer)(told(each) for each in answer)
            return names.get(answer, answer) if isinstance(answer, bytes) else answer

        def same(ask: Any) -> None:
            assert told(ask(real)) == ask(model)

        last = ids[3]
        same(lambda each: each.xlen(stream))
        same(lambda each: each.xrange(stream, count=2))
        same(lambda each: each.xrevrange(stream, count=1))
        same(lambda each: each.xread({stream: "0-0", f"{prefix}:none": "0"}, count=2))
        same(lambda each: each.xread({stream.encode(): b"0-0"}))
        same(lambda each: each.xread({stream: last[each is model]}))
        same(lambda each: each.xread({stream: "$"}))
        same(lambda each: each.xtrim(stream, minid=last[each is model], approximate=False))
        same(lambda each: each.xrange(stream))
        same(lambda each: each.hset(fields, "a", 1))
        same(lambda each: each.hset(fields, "a", "2"))
        same(lambda each: each.hget(fields, "a"))
        same(lambda each: each.hmget(fields, "a", "b"))
        same(lambda each: each.hset(fields, "b", 3))
        same(lambda each: each.hdel(fields, "b"))
        same(lambda each: each.hdel(fields, "b"))
        same(lambda each: each.hget(fields, "b"))
        same(lambda each: each.pttl(fields))
        same(lambda each: each.expire(fields, 60))
        same(lambda each: each.pexpire(f"{prefix}:none", 60))
        same(lambda each: each.pttl(f"{prefix}:none"))
        assert 0 <= model.pttl(fields) - int(real.pttl(fields)) < 10_000
        same(lambda each: each.delete(stream, fields, f"{prefix}:none"))
        same(lambda each: each.hget(fields, "a"))


def test_a_model_comes_back_with_older_data() -> None:
    """What was written since is lost, and what ends has ended by then."""
    now = [0]
    model = RedisModel(lambda: now[0])
    model.hset("hash", "a", 1)
    model.set("string", "value", px=100)
    snapshot = model.snapshot()
    model.hset("hash", "a", 2)
    model.hset("other", "b", 1)
    model.restore(snapshot)
    model.hset("hash", "b", 1)
    model.restore(snapshot)
    assert model.keys() == {"hash": {b"a": b"1"}, "string": b"value"}
    now[0] = 101
    assert model.keys() == {"hash": {b"a": b"1"}}
    assert model.get("string") is None


@pytest.fixture
def both(redis_server: ServerAddress, prefix: str) -> Iterator[tuple[Runner, CallerRegistry]]:
    """The registry as a worker and as a caller use it."""
    connections = Connections(redis_server.url)
    with asyncio.Runner() as runner:
        redis = connections.asyncio()
        made = Registry(redis, prefix)
        yield lambda call: runner.run(call(made)), CallerRegistry(connections, prefix)
        runner.run(redis.aclose())
    connections.close()


ORDERS = Lane("persistent://public/default/orders")


def test_workers_and_lanes(both: tuple[Runner, CallerRegistry]) -> None:
    """A worker counts until it leaves, and a lane is listed."""
    worker, caller = both
    assert caller.survey() == (0, [])
    assert worker(lambda each: each.heartbeat("one", 60.0)) == (1, [CONTEXTS_LANE])
    assert worker(lambda each: each.heartbeat("two", 60.0)) == (2, [CONTEXTS_LANE])
    caller.announce(ORDERS)
    assert worker(lambda each: each.heartbeat("one", 60.0)) == (2, [CONTEXTS_LANE, ORDERS])
    worker(lambda each: each.leave("one"))
    assert caller.survey() == (1, [ORDERS])


def test_times_too_far_ahead_do_not_count(
    both: tuple[Runner, CallerRegistry], redis_server: ServerAddress, prefix: str
) -> None:
    """A ghost would keep a share of the lanes for ever; a worker with a long lease is none."""
    worker, caller = both
    keys = RegistryKeys(prefix)
    worker(lambda each: each.heartbeat("long", 299.0))
    with redis.Redis.from_url(redis_server.url) as client:
        ghosts: Any = {f"ghost{number}": 9e15 for number in range(50)} | {"ever": "+inf"}
        client.zadd(keys.key("workers"), ghosts)
        assert caller.survey() == (1, [])
        assert worker(lambda each: each.heartbeat("one", 60.0))[0] == 2
        assert set(client.zrange(keys.key("workers"), 0, -1)) == {b"long", b"one"}


@pytest.mark.parametrize("part", ["workers", "callers", "lanes", "events"])
def test_a_key_of_a_wrong_type_begins_anew(
    both: tuple[Runner, CallerRegistry],
    redis_server: ServerAddress,
    prefix: str,
    part: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """For a caller and for a worker, and only that key."""
    worker, caller = both
    with redis.Redis.from_url(redis_server.url) as client:
        for ask in (caller.survey, lambda: worker(lambda each: each.heartbeat("one", 60.0))):
            client.set(RegistryKeys(prefix).key(part), "x")
            ask()
            caller.announce(ORDERS, again=True)
            assert worker(lambda each: each.heartbeat("one", 60.0)) == (1, [CONTEXTS_LANE, ORDERS])
    assert all("was deleted" in each.getMessage() for each in caplog.records)
    # A worker does not look at the callers.
    assert len(caplog.records) == {"events": 0, "callers": 1}.get(part, 2)


def test_only_keys_of_a_wrong_type_are_deleted(redis_server: ServerAddress, prefix: str) -> None:
    """The others keep what they hold."""
    connections = Connections(redis_server.url)
    client, keys = connections.sync(), [RegistryKeys(prefix).key(name) for name in "abcd"]
    client.zadd(keys[0], {"x": 1})
    client.set(keys[1], "x")
    client.set(keys[2], "x")
    scripts = Scripts(connections)
    assert scripts.run("registry/heal", keys, ["zset", "zset", "stream", "hash"]) == 2
    assert [client.exists(key) for key in keys] == [1, 0, 0, 0]
    assert scripts.run("registry/heal", keys, ["zset", "zset", "stream", "hash"]) == 0
    assert client.zscore(keys[0], "x") == 1
    connections.close()


def test_a_key_that_another_process_healed_first(
    redis_server: ServerAddress, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is repeated all the same."""
    connections = Connections(redis_server.url)
    key = RegistryKeys(prefix).key("lanes")
    run = Scripts.run

    def healed(self: Scripts, name: str, *given: Any) -> Any:
        if name == "registry/heal":
            connections.sync().delete(key)
        return run(self, name, *given)

    monkeypatch.setattr(Scripts, "run", healed)
    connections.sync().set(key, "x")
    caller = CallerRegistry(connections, prefix)
    caller.announce(ORDERS)
    assert caller.survey() == (0, [ORDERS])
    connections.close()


def test_callers_are_counted_apart(
    both: tuple[Runner, CallerRegistry], redis_server: ServerAddress, prefix: str
) -> None:
    """An owner that is no worker: it keeps others from owning, but takes no worker's share."""
    worker, caller = both
    connections = Connections(redis_server.url)

    async def as_caller(call: Callable[[Registry], Awaitable[Any]]) -> Any:
        client = connections.asyncio()
        try:
            return await call(Registry(client, prefix, "callers"))
        finally:
            await client.aclose()

    def run(call: Callable[[Registry], Awaitable[Any]]) -> Any:
        return asyncio.run(as_caller(call))

    assert run(lambda each: each.heartbeat("one", 60.0)) == (1, [CONTEXTS_LANE])
    assert run(lambda each: each.has_workers()) is False
    assert caller.survey() == (1, [])
    assert worker(lambda each: each.heartbeat("two", 60.0)) == (1, [CONTEXTS_LANE])
    assert run(lambda each: each.has_workers()) is True
    assert caller.survey() == (2, [])
    run(lambda each: each.leave("one"))
    assert caller.survey() == (1, [])
    connections.close()


def test_a_free_lane_is_told(
    both: tuple[Runner, CallerRegistry], redis_server: ServerAddress, prefix: str
) -> None:
    """On the stream that all workers read."""
    worker, caller = both
    caller.announce(ORDERS)
    worker(lambda each: each.announce_free(ORDERS))
    with redis.Redis.from_url(redis_server.url) as client:
        told: Any = client.xrange(RegistryKeys(prefix).key("events"))
    name = ORDERS.name.encode()
    assert [fields for _, fields in told] == [{b"lane": name}, {b"free": name}]


def test_scripts_that_redis_forgot_are_loaded_again(
    redis_server: ServerAddress, prefix: str
) -> None:
    """One by one and in a pipeline, from threads and from an event loop."""
    connections = Connections(redis_server.url)
    keys = [RegistryKeys(prefix).key(part) for part in ("workers", "lanes")]
    sync = Scripts(connections)
    runs: list[Run] = [(keys, ["", 0])] * 3

    async def ask() -> list[Any]:
        client = connections.asyncio()
        scripts = AsyncScripts(client)
        found: list[Any] = []
        for _ in range(2):
            found.append(await scripts.run("registry/heartbeat", keys, ["", 0]))
            await client.script_flush()
            found.append(await scripts.run("registry/heartbeat", keys, ["", 0]))
            await client.script_flush()
            found += await scripts.run_many("registry/heartbeat", runs)
        await client.aclose()
        return found

    found = []
    for _ in range(2):
        found.append(sync.run("registry/heartbeat", keys, ["", 0]))
        connections.sync().script_flush()
        found.append(sync.run("registry/heartbeat", keys, ["", 0]))
        connections.sync().script_flush()
        found += sync.run_many("registry/heartbeat", runs)
    assert found == [[0]] * 10
    assert asyncio.run(ask()) == [[0]] * 10
    connections.close()


def test_one_run_of_many_may_fail(redis_server: ServerAddress, prefix: str) -> None:
    """Its error is its reply; the others have theirs."""
    connections = Connections(redis_server.url)
    keys = [RegistryKeys(prefix).key(part) for part in ("workers", "lanes")]
    replies = Scripts(connections).run_many(
        "registry/heartbeat", [(keys, ["", 0]), (keys, ["one", "soon"]), (keys, ["", 0])]
    )
    assert replies[::2] == [[0], [0]]
    assert isinstance(replies[1], redis.ResponseError)
    connections.close()


def test_what_processes_tell_one_another(
    both: tuple[Runner, CallerRegistry], redis_server: ServerAddress, prefix: str
) -> None:
    """Is kept until it is said to be gone."""
    _, caller = both
    now, told = caller.tell_peers("one", lambda now: b"%d" % now, 60, lambda *_: False)
    assert told == {"one": b"%d" % now}
    _, told = caller.tell_peers("two", lambda now: b"2", 60, lambda told, _: told != b"2")
    assert told == {"one": b"%d" % now, "two": b"2"}
    _, told = caller.tell_peers("three", lambda now: b"3", 60, lambda *_: False)
    assert told == {"two": b"2", "three": b"3"}


def test_a_process_that_has_ended_is_removed(
    both: tuple[Runner, CallerRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next caller that looks, so that nobody waits for it to send."""
    worker, caller = both
    worker(lambda each: each.heartbeat("dead", 60.0))
    worker(lambda each: each.heartbeat("alive", 60.0))
    assert caller.remove_ended() is False
    monkeypatch.setattr(registry, "has_ended", lambda name: name == "dead")
    assert caller.remove_ended() is True
    assert caller.survey() == (1, [])
    assert caller.remove_ended() is False


def test_what_redis_refuses_otherwise(
    both: tuple[Runner, CallerRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is told, and heals nothing."""

    def refuse(self: Scripts, name: str, *given: Any) -> Any:
        assert name != "registry/heal"
        raise redis.exceptions.ResponseError("NOPERM")

    monkeypatch.setattr(Scripts, "run", refuse)
    with pytest.raises(redis.exceptions.ResponseError, match="NOPERM"):
        both[1].announce(ORDERS)
