"""Workers that die, freeze, or leave: nothing is lost, nobody hangs, order holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from celery_stargate import ProduceTask
from tests.acceptance.conftest import MakeRig
from tests.acceptance.rig import LEASE, WAIT, Rig, Worker, eventually
from tests.servers.admin import topic_path

#: What a take-over may take beyond two leases on a busy machine with two cores, in seconds.
MARGIN = 20.0


def firsts(texts: list[str]) -> list[str]:
    """The first occurrence of each text, in order."""
    return list(dict.fromkeys(texts))


def acknowledged(rig: Rig, key: str) -> set[str]:
    """The contexts whose `on_ack` left an entry so far."""
    return {each["argument"]["context"] for each in rig.recorded(key, 0)}


def has_lane(rig: Rig, worker: Worker, topic: str) -> bool:
    """Whether the worker's process holds the topic's lane."""
    owner = rig.owner(topic)
    return owner is not None and f"-{worker.pid}-" in owner


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """An app whose callbacks have a queue of their own: Celery itself loses tasks that a killed
    worker had taken, and this is not about those."""
    made = make_rig()
    route = {"acceptance.record": {"queue": f"{made.name}-callbacks"}}
    made.app.conf.task_routes = route
    made.conf["task_routes"] = route
    return made


@pytest.fixture
def callbacks(rig: Rig) -> Iterator[Worker]:
    """A worker for the callbacks, which owns no lanes."""
    args = ("--without-stargate", "-Q", f"{rig.name}-callbacks")
    with rig.worker(pool="solo", args=args) as worker:
        yield worker


@pytest.mark.timeout(180)
def test_killed_worker_with_thousands_in_flight(rig: Rig, callbacks: Worker) -> None:
    """Two workers share lanes, and the one that holds most of what is pending is killed with its
    whole process group: all is stored, in order, every caller has its result, and every context
    its callback, always under the same task id."""
    count = 4000
    topics = [rig.topic(f"k{n}") for n in range(2)]
    acked, failed = rig.key(), rig.key()
    results: dict[str, list[Any]] = {topic: [] for topic in topics}
    wanted = set()
    with rig.worker() as first, rig.worker() as second:
        # Both begin with the whole of it.
        for worker in (first, second):
            worker.pause()
        for n in range(count):
            for topic in topics:
                options = {"on_ack": rig.record(acked)} if n % 20 == 0 else {}
                result = rig.produce.delay(
                    str(n), topic=topic, on_error=rig.record(failed), **options
                )
                results[topic].append(result)
                if options:
                    wanted.add(result.id)
        for worker in (first, second):
            worker.resume()

        def victim() -> Worker | None:
            """The worker that has begun with a lane and has most of it still before it."""
            for topic in topics:
                if 1000 < rig.pending(topic) < count - 100:
                    return first if has_lane(rig, first, topic) else second
            return None

        chosen = eventually(victim, every=0.002)
        assert chosen is not None, "no lane was caught half-way"
        chosen.kill()
        killed = time.monotonic()
        left = sum(rig.pending(topic) for topic in topics)
        for topic in topics:
            for result in results[topic]:
                assert result.get(timeout=WAIT)["status"] == "stored"
        took = time.monotonic() - killed
        assert left > 1000, f"only {left} were pending at the kill"
        assert took < 2 * LEASE + MARGIN
        for topic in topics:
            assert firsts(rig.texts(topic)) == [str(n) for n in range(count)]
        assert eventually(lambda: wanted == acknowledged(rig, acked)), "a callback is missing"
        ids: dict[str, set[str]] = {}
        for each in rig.recorded(acked, 0):
            ids.setdefault(each["argument"]["context"], set()).add(each["id"])
        assert set(ids) == wanted
        assert all(len(each) == 1 for each in ids.values())
        assert rig.log.llen(failed) == 0
        assert eventually(lambda: not any(rig.pending(topic) for topic in topics))


def test_warm_shutdown_drains_and_hands_over_at_once(make_rig: MakeRig) -> None:
    """SIGTERM in the middle: what is in flight is heard, so nothing is sent twice, and the other
    worker goes on long before a lease would have passed."""
    rig = make_rig(stargate_lease=60)
    topic = rig.topic()
    with rig.worker() as first:
        rig.produce.delay("first", topic=topic).get(timeout=WAIT)
        with rig.worker() as second:
            assert has_lane(rig, first, topic) or has_lane(rig, second, topic)
            owner, other = (first, second) if has_lane(rig, first, topic) else (second, first)
            results = [rig.produce.delay(str(n), topic=topic) for n in range(600)]
            owner.terminate()
            told = time.monotonic()
            results += [rig.produce.delay(str(n), topic=topic) for n in range(600, 1200)]
            assert eventually(lambda: has_lane(rig, other, topic), every=0.01)
            took = time.monotonic() - told
            for result in results:
                assert result.get(timeout=WAIT)["status"] == "stored"
            assert rig.texts(topic) == ["first", *map(str, range(1200))]
            assert owner.wait_for_end()
            # A lease is 60 s here.
            assert took < 20.0
            assert "are left to the next owner" not in owner.log()


def test_idle_lanes_are_free_right_after_a_warm_shutdown(make_rig: MakeRig) -> None:
    """A worker that leaves with nothing to do releases its lanes at once."""
    rig = make_rig(stargate_lease=60)
    topic = rig.topic()
    with rig.worker(pool="solo") as first:
        rig.produce.delay("a", topic=topic).get(timeout=WAIT)
        first.terminate()
        assert first.wait_for_end(15)
        assert rig.owner(topic) is None
        with rig.worker(pool="solo"):
            assert rig.produce.delay("b", topic=topic).get(timeout=10)["status"] == "stored"


def test_frozen_owner_is_fenced(rig: Rig, callbacks: Worker) -> None:
    """An owner frozen for longer than its lease loses the lane; when it goes on it settles nothing
    more, each context has had one outcome, and it is a good worker again."""
    topic, acked, failed, count = rig.topic(), rig.key(), rig.key(), 1500

    def publish(start: int, end: int) -> list[Any]:
        return [
            rig.produce.delay(
                str(n), topic=topic, on_ack=rig.record(acked), on_error=rig.record(failed)
            )
            for n in range(start, end)
        ]

    with rig.worker() as frozen:
        # It begins with the whole of it.
        frozen.pause()
        results = publish(0, count)
        frozen.resume()
        assert eventually(lambda: 0 < rig.pending(topic) < count - 10, every=0.002)
        frozen.pause()
        in_flight = rig.pending(topic)
        results += publish(count, count + 100)
        with rig.worker() as other:
            assert eventually(lambda: has_lane(rig, other, topic))
            for result in results:
                assert result.get(timeout=WAIT)["status"] == "stored"
            frozen.resume()
            assert eventually(lambda: "another owner has it now" in frozen.log())
            results += publish(count + 100, count + 150)
            for result in results:
                assert result.get(timeout=WAIT)["status"] == "stored"
            contexts = {each.id for each in results}
            assert eventually(lambda: contexts == acknowledged(rig, acked))
        # The one that was frozen is alone now, and takes the lane again.
        assert rig.produce.delay("last", topic=topic).get(timeout=WAIT)["status"] == "stored"
        assert has_lane(rig, frozen, topic)
    assert in_flight > 0
    assert firsts(rig.texts(topic)) == [*map(str, range(count + 150)), "last"]
    assert acknowledged(rig, acked) == contexts
    assert rig.log.llen(failed) == 0


@pytest.mark.parametrize("signalled", ["main", "group"])
def test_sockets_are_not_inherited(make_rig: MakeRig, signalled: str) -> None:
    """Children forked while the socket is open do not hold it: when the worker's main process is
    killed, Pulsar sees the producer go at once, though its children live on."""
    name = f"named-{time.time_ns()}"
    rig = make_rig(stargate_producer_name=name)
    topic = rig.topic()
    key = rig.key()
    with rig.worker(args=("--max-tasks-per-child", "1")) as worker:
        rig.produce.delay("a", topic=topic).get(timeout=WAIT)
        early = {rig.task("pid").delay().get(timeout=WAIT) for _ in range(4)}
        for _ in range(2):
            rig.task("hold").delay(key)
        running = {each["pid"] for each in rig.recorded(f"{key}:running", 2)}
        assert not running & early, "no child was forked after the socket was open"
        assert taken(rig, topic, name)
        if signalled == "main":
            worker.kill_main_only()
        else:
            worker.kill()
        assert eventually(lambda: not taken(rig, topic, name), timeout=10)
        # Whoever is next has the name right away.
        with rig.worker(pool="solo"):
            assert rig.produce.delay("b", topic=topic).get(timeout=WAIT)["status"] == "stored"
        worker.kill()


def taken(rig: Rig, topic: str, name: str) -> bool:
    """Whether Pulsar has a producer of that name on the topic."""
    url = f"{rig.pulsar_url}/ws/v2/producer/{topic_path(topic)}?producerName={name}"
    try:
        with connect(url, compression=None, open_timeout=45, proxy=None):
            return False
    except InvalidStatus as refused:
        assert refused.response.status_code == 409
        return True


def test_worker_started_after_the_calls(make_rig: MakeRig) -> None:
    """What was published while no worker was alive waits for one, in order."""
    rig = make_rig()
    topic = rig.topic()
    results = [rig.produce.delay(str(n), topic=topic) for n in range(50)]
    orders: ProduceTask = rig.task("orders")
    own = orders.delay("own")
    with rig.worker(pool="solo"):
        assert {each.get(timeout=WAIT)["status"] for each in [*results, own]} == {"stored"}
        assert rig.texts(topic, 50) == [str(n) for n in range(50)]


def test_lanes_are_shared_fairly(make_rig: MakeRig) -> None:
    """With two workers each owns about half of the lanes; a third worker's share is given to it."""
    rig = make_rig()
    topics = [rig.topic(f"s{n}") for n in range(6)]
    for topic in topics:
        rig.produce.delay("x", topic=topic)

    def shares(*workers: Worker) -> list[int]:
        return [sum(has_lane(rig, worker, topic) for topic in topics) for worker in workers]

    with rig.worker(pool="solo") as first:
        assert eventually(lambda: shares(first) == [6])
        with rig.worker(pool="solo") as second:
            # Six topics and the lane of the contexts without a message: four and three.
            # A lane that changes hands belongs to nobody for a moment.
            assert eventually(lambda: sorted(shares(first, second)) in ([2, 4], [3, 3]))
            with rig.worker(pool="solo") as third:
                assert eventually(
                    lambda: (
                        max(shares(first, second, third)) <= 3
                        and sum(shares(first, second, third)) == 6
                    )
                )
                results = [rig.produce.delay("y", topic=topic) for topic in topics]
                assert {each.get(timeout=WAIT)["status"] for each in results} == {"stored"}
