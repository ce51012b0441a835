"""A Redis of many servers under faults: `python -m tests.acceptance.cluster --messages 100000`.

Callers put messages into 24 lanes, and two workers send them. Meanwhile, on a Cluster, a slot moves
to another master, a master is killed, and so is a worker; behind Sentinel (`--sentinel`) the master
is killed twice, and a worker once. Afterwards the topic must hold each message whose call returned,
those of a lane in order; each call must have its result, and each callback must have run. A master
that dies may take with it what no replica had yet: that is counted.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from celery_stargate import StoreUnavailable
from celery_stargate.lanes.lane import Lane, spread
from tests.acceptance.rig import Rig, Worker, eventually, text
from tests.servers.admin import PulsarAdmin
from tests.servers.cluster import ClusterServers
from tests.servers.pulsar import PulsarServer
from tests.servers.redis import RedisServer
from tests.servers.sentinel import MASTER_NAME, SentinelServers

LANES = 24
#: How many threads call; each has lanes of its own, so that a lane has one order.
_CALLERS = 4
#: Every so many calls one has a callback.
_CALLBACK_EVERY = 50
#: Seconds for which one call is tried again.
_PATIENCE = 90.0
#: Without a new result for so many seconds, the rest is not waited for.
_STILL = 60.0
#: A key for each lane.
_KEYS = [
    next(str(each) for each in range(10_000) if spread(str(each), LANES) == lane)
    for lane in range(LANES)
]


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    messages: int
    lost: int
    out_of_order: int
    twice: int
    without_result: int
    without_callback: int
    tried_again: int
    seconds: float

    @property
    def good(self) -> bool:
        """Whether nothing is missing, and each lane is in order."""
        return not (self.lost or self.out_of_order or self.without_result or self.without_callback)

    def __str__(self) -> str:
        return (
            f"{self.messages} messages over {LANES} lanes: lost {self.lost}, out of order "
            f"{self.out_of_order}, twice {self.twice}, without a result {self.without_result}, "
            f"without a callback {self.without_callback}; {self.tried_again} calls were tried "
            f"again; {self.seconds:.0f} s"
        )


class Servers(Protocol):
    """The servers of the lanes, and what disturbs them."""

    @property
    def conf(self) -> dict[str, Any]:
        """The settings that name them."""

    def __enter__(self) -> object: ...
    def __exit__(self, *_: object) -> None: ...

    def faults(self, key: Callable[[int], str]) -> list[Callable[[], object]]:
        """Return what happens to them, in order.

        Args:
            key: returns a key of a lane.
        """


class Cluster:
    """A Cluster: a slot moves, and a master is killed.

    Args:
        folder: for data and logs.
    """

    def __init__(self, folder: Path) -> None:
        self._servers = ClusterServers(folder)

    @property
    def conf(self) -> dict[str, Any]:
        return {"stargate_redis_url": self._servers.url}

    def __enter__(self) -> object:
        return self._servers.__enter__()

    def __exit__(self, *_: object) -> None:
        self._servers.stop()

    def faults(self, key: Callable[[int], str]) -> list[Callable[[], object]]:
        return [
            partial(self._move_slot, key(0)),
            lambda: self._servers.master_of(key(LANES // 2)).kill(),
        ]

    def _move_slot(self, key: str) -> None:
        source = self._servers.master_of(key)
        other = next(each for each in self._servers.masters() if each is not source)
        self._servers.move_slot(key, other)


class Sentinel:
    """A master and two replicas: twice the master is killed, and another takes its place.

    A master without a replica refuses to write after a second.

    Args:
        folder: for data and logs.
    """

    def __init__(self, folder: Path) -> None:
        bound = {"min-replicas-to-write": "1", "min-replicas-max-lag": "1"}
        self._servers = SentinelServers(folder, config=bound)

    @property
    def conf(self) -> dict[str, Any]:
        return {
            "stargate_redis_url": self._servers.url,
            "stargate_redis_options": {"master_name": MASTER_NAME},
        }

    def __enter__(self) -> object:
        return self._servers.__enter__()

    def __exit__(self, *_: object) -> None:
        self._servers.stop()

    def faults(self, key: Callable[[int], str]) -> list[Callable[[], object]]:
        return [self._fail_over, self._fail_over]

    def _fail_over(self) -> None:
        killed = self._servers.master
        killed.kill()
        self._servers.failover()
        # The sentinels make a replica of it.
        killed.start()


class Chaos:
    """The servers of the lanes, callers and workers, for one run. A context manager.

    Args:
        pulsar_url: of the broker.
        admin: of the broker.
        redis_url: of Celery's broker and results.
        servers: of the lanes.
        folder: for logs.
    """

    def __init__(
        self, pulsar_url: str, admin: PulsarAdmin, redis_url: str, servers: Servers, folder: Path
    ) -> None:
        self._servers = servers
        logs = folder / "workers"
        logs.mkdir()
        name = uuid.uuid4().hex[:8]
        conf = {
            **servers.conf,
            "stargate_lanes": LANES,
            "stargate_lease": 4.0,
            # Celery itself loses tasks that a killed worker had taken.
            "task_routes": {"acceptance.record": {"queue": f"{name}-callbacks"}},
        }
        self._callback_queue = f"{name}-callbacks"
        self._rig = Rig(pulsar_url, admin, redis_url, logs, conf)
        self._open = ExitStack()
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        self._put = self._again = 0
        #: By lane: the numbers whose call returned, in the order of the calls.
        self._called: dict[int, list[int]] = defaultdict(list)
        self._tasks: list[str] = []
        self._with_callback: set[str] = set()

    def __enter__(self) -> Self:
        try:
            self._open.enter_context(self._servers)
            self._open.enter_context(self._rig)
            self._open.callback(self._kill_workers)
            args = ("--without-stargate", "-Q", self._callback_queue)
            self._open.enter_context(self._rig.worker(pool="solo", args=args))
            self._workers = [self._rig.worker(pool="solo").start() for _ in range(2)]
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.kill()

    def run(self, messages: int) -> Outcome:
        """Call, disturb, wait for all results, and read the topic.

        Raises:
            AssertionError: a call did not get through in time.
        """
        began = time.monotonic()
        topic, key = self._rig.topic("chaos"), self._rig.key()
        self._rig.admin.create_topic(topic)
        self._rig.admin.create_subscription(topic, "keep")
        marks = iter((1 / 4, 1 / 2, 3 / 4))
        with ThreadPoolExecutor(_CALLERS) as callers:
            calling = [
                callers.submit(self._call, topic, key, messages // LANES, first)
                for first in range(_CALLERS)
            ]
            for fault in (*self._servers.faults(partial(self._key, topic)), self._kill_worker):
                mark = next(marks) * messages
                self._wait(partial(self._reached, mark, calling))
                fault()
            for caller in calling:
                caller.result()
        total = len(self._tasks)
        bound = _PATIENCE + total / 100
        without_result = self._wait_for_results()
        eventually(lambda: len(self._told(key)) >= len(self._with_callback), _PATIENCE, every=0.5)
        found: dict[int, list[int]] = defaultdict(list)
        for each in self._rig.read(topic, timeout=bound):
            lane, number = text(each).split(":")
            found[int(lane)].append(int(number))
        firsts = {lane: list(dict.fromkeys(numbers)) for lane, numbers in found.items()}
        return Outcome(
            total,
            lost=sum(len(set(self._called[n]) - set(firsts.get(n, ()))) for n in range(LANES)),
            out_of_order=sum(
                before > after
                for numbers in firsts.values()
                for before, after in itertools.pairwise(numbers)
            ),
            twice=sum(map(len, found.values())) - sum(map(len, firsts.values())),
            without_result=without_result,
            without_callback=len(self._with_callback - self._told(key)),
            tried_again=self._again,
            seconds=time.monotonic() - began,
        )

    def _call(self, topic: str, key: str, each: int, first: int) -> None:
        """Put so many messages into each of a caller's lanes, in turn."""
        for number in range(each):
            for lane in range(first, LANES, _CALLERS):
                task_id = f"{self._rig.name}-{lane}-{number}"
                options: dict[str, Any] = {"topic": topic}
                if (number * LANES + lane) % _CALLBACK_EVERY == 0:
                    options["on_ack"] = self._rig.record(key)
                self._insist(task_id, (_KEYS[lane], f"{lane}:{number}"), options)
                with self._lock:
                    self._put += 1
                    self._called[lane].append(number)
                    self._tasks.append(task_id)
                    if "on_ack" in options:
                        self._with_callback.add(task_id)

    def _insist(self, task_id: str, message: Any, options: dict[str, Any]) -> None:
        """Call until the call returns; with one id it is recorded once."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                self._rig.produce.apply_async((message,), options, task_id=task_id)
            except StoreUnavailable:
                self._again += 1
                assert time.monotonic() < end, f"{task_id} was not recorded in {_PATIENCE:g} s"
            else:
                return

    def _key(self, topic: str, lane: int) -> str:
        return Lane(topic, lane).key(self._rig.stargate.settings.keyspace, "log")

    def _kill_worker(self) -> None:
        self._workers.pop(0).kill()
        self._workers.append(self._rig.worker(pool="solo").start())

    def _reached(self, count: float, calling: Sequence[Future[None]]) -> bool:
        """Whether so many calls returned, or all callers ended."""
        return self._put >= count or all(each.done() for each in calling)

    def _wait(self, condition: Callable[[], bool]) -> None:
        assert eventually(condition, 20 * _PATIENCE), "the calls stand still"

    def _wait_for_results(self) -> int:
        """Wait until each call has its result; return how many have none that is a receipt."""
        left = list(self._tasks)
        end = time.monotonic() + _STILL
        while left and time.monotonic() < end:
            before = len(left)
            left = self._without_result(left)
            if len(left) < before:
                end = time.monotonic() + _STILL
            time.sleep(1.0)
        return len(left)

    def _without_result(self, tasks: list[str]) -> list[str]:
        backend: Any = self._rig.app.backend
        waiting: list[str] = []
        for start in range(0, len(tasks), 1000):
            part = tasks[start : start + 1000]
            stored = backend.client.mget([backend.get_key_for_task(each) for each in part])
            waiting += [
                each
                for each, row in zip(part, stored, strict=True)
                if row is None or backend.decode_result(row)["status"] != "SUCCESS"
            ]
        return waiting

    def _told(self, key: str) -> set[str]:
        """The contexts whose callback ran."""
        return {each["argument"]["context"] for each in self._rig.recorded(key, 0)}


def main(arguments: Any = None) -> int:
    """Run once on servers of its own, print what came of it, and return 1 if it is not good."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--sentinel", action="store_true", help="Sentinel in place of a Cluster")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        place = Path(folder)
        broker = PulsarServer(place / "pulsar")
        opened.callback(broker.kill)
        broker.start()
        redis_server = opened.enter_context(RedisServer(place / "redis"))
        servers = Sentinel(place / "lanes") if given.sentinel else Cluster(place / "lanes")
        with Chaos(broker.url, broker.admin, redis_server.url, servers, place) as chaos:
            found = chaos.run(given.messages)
    print(found, flush=True)
    return 0 if found.good else 1


if __name__ == "__main__":
    sys.exit(main())
