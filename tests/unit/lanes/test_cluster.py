"""Which node of a Cluster a command goes to, and what its errors mean."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as NoAnswer

from celery_stargate.lanes import sync_cluster
from celery_stargate.lanes.async_cluster import AsyncClusterClient, AsyncClusterScript
from celery_stargate.lanes.cluster import (
    NotACluster,
    SilentNodes,
    goes_by,
    may_pass,
    not_in_time,
    sha_of,
)
from celery_stargate.lanes.sync_cluster import ClusterScript
from celery_stargate.support.bound import bounded, time_left


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("HGET", "a", "field"), "a"),
        (("XREAD", b"COUNT", 1, b"BLOCK", 9, b"STREAMS", b"a", b"b", "0", "0"), b"a"),
        (("EVALSHA", "sha", 2, "a", "b", "x"), "a"),
        (("EVAL", "text", 1, "a"), "a"),
        (("TIME",), None),
        (("INFO", "memory"), None),
        (("CONFIG GET", "save"), None),
        (("SCRIPT LOAD", "text"), None),
    ],
)
def test_the_key_of_a_command(arguments: tuple[Any, ...], key: Any) -> None:
    """Is found without asking a server."""
    assert goes_by(arguments) == key


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (LostConnection("x"), True),
        (TryAgainError("x"), True),
        (ClusterDownError("x"), True),
        (RedisClusterException("cannot be connected"), True),
        (ResponseError("LOADING"), True),
        (ResponseError("WRONGTYPE"), False),
        (AuthenticationError("x"), False),
    ],
)
def test_what_may_pass(error: Exception, passes: bool) -> None:
    """A failover, a slot that moves; no mistake, and no wrong password."""
    assert may_pass(error) is passes


def test_a_server_that_is_no_cluster() -> None:
    """Is told at once."""
    with pytest.raises(NotACluster, match="use redis:// or rediss://"):
        may_pass(RedisClusterException("Cluster mode is not enabled on this node"))
    assert not may_pass(NotACluster("x"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ClusterDownError("The cluster is down"), "set cluster-require-full-coverage to no"),
        (ClusterDownError("Hash slot not served"), "is down, or cannot be reached"),
        (TryAgainError("x"), "is being moved"),
        (LostConnection("refused"), "refused; this shard of the Redis Cluster is down"),
    ],
)
def test_what_is_said_in_the_end(error: Exception, words: str) -> None:
    """What was found, and what it may be."""
    assert words in str(not_in_time(error))


def test_a_node_that_does_not_answer_is_tried_seldom() -> None:
    """By one call; the others are told at once, and another node is no matter of it."""
    now = [0.0]
    nodes = SilentNodes(lambda: now[0])
    tried = []

    def call(name: str, error: Exception | None = None) -> None:
        with nodes.watched(name):
            tried.append(name)
            if error is not None:
                raise error

    with pytest.raises(LostConnection):
        call("a", LostConnection("away"))
    with pytest.raises(LostConnection, match="away"):
        call("a")
    call("b")
    assert tried == ["a", "b"]
    now[0] = 0.6
    call("a")
    call("a")
    assert tried == ["a", "b", "a", "a"]


def test_a_node_whose_error_says_nothing() -> None:
    """It is tried by one call, too."""
    now = [0.0]
    nodes = SilentNodes(lambda: now[0])
    with pytest.raises(NoAnswer), nodes.watched("a"):
        raise NoAnswer
    now[0] = 0.6
    with nodes.watched("a"), pytest.raises(LostConnection), nodes.watched("a"):
        pytest.fail("it is tried by another call")


def test_a_call_without_time_marks_no_node() -> None:
    """Another caller, with more of it, tries the node at once."""
    nodes = SilentNodes(lambda: 0.0)
    with bounded(0.01), pytest.raises(NoAnswer), nodes.watched("a"):
        raise NoAnswer
    with nodes.watched("a"):
        pass
    with bounded(0.01), pytest.raises(LostConnection), nodes.watched("a"):
        raise LostConnection("refused")
    with pytest.raises(LostConnection), nodes.watched("a"):
        pytest.fail("it refuses connections, whoever asks")


class Shards:
    """A client whose shard with one lane is down for some calls."""

    def __init__(self, down: str, calls: int) -> None:
        self.down, self.calls = down, calls
        self.done: list[tuple[str, int]] = []
        self.left: list[float] = []

    def execute_command(self, _: str, __: str, ___: int, lane: str, argument: int) -> int:
        """Run, or fail when the bound is over."""
        self.left.append(time_left())
        if lane == self.down and self.calls:
            self.calls -= 1
            raise LostConnection("down")
        self.done.append((lane, argument))
        return argument


RUNS = [((lane,), (number,)) for number, lane in enumerate(["a", "b", "a", "c", "b"])]


def test_a_lane_whose_shard_is_down_holds_up_no_other_lane() -> None:
    """Its runs have the error, in order; the others have their replies, and their time."""
    shards: Any = Shards("a", 9)
    replies = ClusterScript(shards, "return 1").run_each(RUNS)
    assert [type(each) for each in replies] == [LostConnection, int, LostConnection, int, int]
    assert shards.done == [("b", 1), ("b", 4), ("c", 3)]
    # A try for each lane takes no more than half of the time, and the second one has the rest.
    assert shards.left[0] <= 5 / 6 + 0.1
    assert shards.left[-1] > 4


def test_a_shard_that_comes_back_gets_its_runs_in_order() -> None:
    """Within the same call."""
    shards: Any = Shards("a", 1)
    assert ClusterScript(shards, "return 1").run_each(RUNS) == [0, 1, 2, 3, 4]
    assert shards.done[-2:] == [("a", 0), ("a", 2)]


def test_a_cluster_that_is_slow_to_connect_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread connects, and another one waits no longer than its own call may take."""
    connecting, connected = threading.Event(), threading.Event()

    def connect(**_: Any) -> None:
        connecting.set()
        assert connected.wait(20)
        raise AuthenticationError

    monkeypatch.setattr(sync_cluster, "_Cluster", connect)
    client = sync_cluster.ClusterClient([("127.0.0.1", 1)], lambda **_: None)
    first = threading.Thread(target=suppressed(lambda: client.execute_command("PING")))
    first.start()
    assert connecting.wait(20)
    # Whoever waited for the first thread's end would wait for this.
    timer = threading.Timer(5.0, connected.set)
    timer.start()
    began = time.monotonic()
    with bounded(0.3), pytest.raises(LostConnection):
        client.execute_command("PING")
    assert time.monotonic() - began < 3
    connected.set()
    timer.cancel()
    first.join(20)
    assert not first.is_alive()


def test_a_mistake_in_a_pipeline_is_raised() -> None:
    """It is no reply of a node."""

    def make() -> Any:
        raise ValueError("no client can be made")

    async def run() -> None:
        client: Any = AsyncClusterClient(make)
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.get("key")
            await pipeline.execute(raise_on_error=False)

    with pytest.raises(ValueError, match="no client can be made"):
        asyncio.run(run())


def suppressed(call: Callable[[], object]) -> Callable[[], None]:
    """Return the call without its errors of connections."""

    def run() -> None:
        with suppress(LostConnection):
            call()

    return run


def test_a_node_that_redis_py_does_not_know_yet() -> None:
    """It fails by a mistake of its own; every other mistake is told."""
    nothing: Any = None
    with pytest.raises(TryAgainError, match="to a new node"), SilentNodes().watched("a"):
        nothing.execute_command()
    with pytest.raises(AttributeError), SilentNodes().watched("a"):
        object().execute_command()  # type: ignore[attr-defined]


def test_the_hash_of_a_script() -> None:
    """As Redis computes it."""
    assert sha_of("return 1") == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"


class _Node:
    """Stands where the Cluster's client for event loops does: the last call is answered first."""

    def __init__(self, errors: dict[str, Exception] | None = None) -> None:
        self.errors = errors or {}
        self.ran: list[Any] = []
        self._under_way = 0

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Answer with the last argument."""
        self._under_way += 1
        for _ in range(10 - self._under_way):
            await asyncio.sleep(0)
        self.ran.append(arguments[-1])
        if arguments[-1] in self.errors:
            raise self.errors[arguments[-1]]
        return arguments[-1]


def run_each(node: Any, *runs: tuple[str, str]) -> list[Any]:
    """Run a script for some lanes in an event loop."""
    script = AsyncClusterScript(node, "text")
    return asyncio.run(script.run_each([([lane], [each]) for lane, each in runs]))


def test_what_one_lane_is_given_stays_in_order_in_an_event_loop() -> None:
    """Calls that put at the same time keep their order; another lane does not wait for them."""
    node = _Node()
    runs = [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")]
    assert run_each(node, *runs) == ["a1", "a2", "b1", "a3"]
    assert [each for each in node.ran if each != "b1"] == ["a1", "a2", "a3"]
    assert node.ran[0] == "b1"


def test_a_lane_whose_node_does_not_answer_in_an_event_loop() -> None:
    """What follows there has the same error, and does not overtake; the other lane goes on."""
    lost = LostConnection("away")
    node = _Node({"a1": lost})
    runs = [("a", "a1"), ("a", "a2"), ("b", "b1")]
    assert run_each(node, *runs) == [lost, lost, "b1"]
    assert "a2" not in node.ran


def test_a_run_that_redis_refuses_in_an_event_loop() -> None:
    """Has its own error; it says nothing about the next run."""
    refused = ResponseError("WRONGTYPE")
    assert run_each(_Node({"a1": refused}), ("a", "a1"), ("a", "a2")) == [refused, "a2"]


def test_what_passes_is_tried_again_in_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot that moves; an answer that is final is raised at once."""
    answers: list[Any] = [TryAgainError("moving"), LostConnection("away"), b"1"]
    client = AsyncClusterClient(lambda: None)  # type: ignore[arg-type, return-value]

    async def run(*_: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(client, "_run", run)
    assert asyncio.run(client.execute_command("GET", "key")) == b"1"
    answers += [ResponseError("WRONGTYPE"), b"never"]
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        asyncio.run(client.execute_command("GET", "key"))
    assert answers == [b"never"]
