"""Effectively once under kills, run by run: `python -m tests.acceptance.once --runs 50`.

Each run has a topic of its own, some thousand messages, and two worker processes. By its seed the
worker that owns the lane is killed with -9 a few times, and the broker once, while messages are in
flight. Afterwards the topic must hold each message once, in order, and each caller must have its
receipt. `--control` does the same where the broker does not deduplicate, and nobody asks it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from celery_stargate import StoreUnavailable
from tests.acceptance.rig import Rig, Worker, eventually
from tests.acceptance.tasks import BELIEVE
from tests.faults.checker import accepted, check
from tests.servers.pulsar import PulsarServer
from tests.servers.redis import RedisServer

#: How many messages are in flight at least when something is killed.
_IN_FLIGHT = 100
#: The bound on what one run waits for its receipts, in seconds.
WAIT = 180.0

_PAGE = Path(__file__).parents[2] / "docs" / "effectively_once.md"
_BEGIN, _END = "<!-- runs: begin -->", "<!-- runs: end -->"


@dataclass(frozen=True)
class Run:
    """What one run came to."""

    seed: int
    messages: int
    worker_kills: int
    broker_kills: int
    lost: int
    duplicates: int
    in_order: bool
    deduplicated: int
    seconds: float

    @property
    def good(self) -> bool:
        """Whether each message stands in the topic once, in order."""
        return not self.lost and not self.duplicates and self.in_order

    def __str__(self) -> str:
        order = "in order" if self.in_order else "OUT OF ORDER"
        return (
            f"seed {self.seed}: {self.messages} messages, {self.worker_kills} workers and "
            f"{self.broker_kills} brokers killed, lost {self.lost}, twice {self.duplicates}, "
            f"{order}, {self.deduplicated} receipts of what was stored before, {self.seconds:.1f} s"
        )


class Bench:
    """A broker, a Redis and two workers that live through many runs.

    Args:
        folder: for data and logs.
        deduplication: whether the broker deduplicates; where not, the workers do not ask.
    """

    def __init__(self, folder: Path, *, deduplication: bool = True) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._broker = PulsarServer(folder / "pulsar", deduplication=deduplication)
        self._redis = RedisServer(folder / "redis")
        self._env = {} if deduplication else {BELIEVE: "1"}
        self._workers: list[Worker] = []
        self._rig: Rig | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _start(self) -> None:
        self._open.callback(self._broker.kill)
        self._broker.start()
        self._open.enter_context(self._redis)
        logs = self._folder / "workers"
        logs.mkdir()
        conf = {"stargate_delivery": "effectively_once"}
        self._rig = self._open.enter_context(
            Rig(self._broker.url, self._broker.admin, self._redis.url, logs, conf)
        )
        self._open.callback(self._kill_workers)
        with ThreadPoolExecutor(2) as both:
            self._workers = list(both.map(lambda _: self._new_worker(), range(2)))

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _new_worker(self) -> Worker:
        assert self._rig is not None
        return self._rig.worker(pool="solo", env=self._env).start()

    def run(self, seed: int, messages: int) -> Run:
        """Publish, kill by the seed, and look at what the topic holds.

        Raises:
            AssertionError: a caller has no receipt in time.
        """
        rig, draw = self._rig, random.Random(seed)
        assert rig is not None
        began = time.monotonic()
        topic = rig.topic(f"run{seed}")
        rig.admin.create_topic(topic)
        # What nobody has subscribed to, a restarted broker forgets.
        rig.admin.create_subscription(topic, "keep")
        for worker in self._workers:
            worker.pause()
        results = [_record(rig, str(number), topic) for number in range(messages)]
        for worker in self._workers:
            worker.resume()

        def below(bound: float) -> bool:
            """Whether fewer are left, and many of these are in flight."""
            left, in_flight = rig.waiting(topic)
            return left < bound and (in_flight > _IN_FLIGHT or left == 0)

        kills = ["worker"] * draw.randint(1, 3) + ["broker"]
        draw.shuffle(kills)
        marks = sorted((draw.uniform(0.1, 0.95) for _ in kills), reverse=True)
        for what, mark in zip(kills, marks, strict=True):
            reached = eventually(partial(below, mark * messages), WAIT, every=0.001)
            assert reached, f"seed {seed}: the lane stands still"
            if what == "worker":
                self._kill_owner(topic)
            else:
                self._broker.kill()
                time.sleep(draw.uniform(0.0, 1.0))
                self._broker.start()
        statuses = Counter(result.get(timeout=WAIT)["status"] for result in results)
        assert set(statuses) <= {"stored", "deduplicated"}, statuses
        noted = [each for number in range(messages) for each in accepted(str(number), 0, number)]
        noted += [{"event": "found", "id": text} for text in rig.texts(topic)]
        sets = check(noted)
        return Run(
            seed,
            messages,
            kills.count("worker"),
            kills.count("broker"),
            lost=len(sets.lost),
            duplicates=sets.duplicated,
            in_order=not sets.out_of_order and not sets.unexpected,
            deduplicated=statuses["deduplicated"],
            seconds=time.monotonic() - began,
        )

    def _kill_owner(self, topic: str) -> None:
        """Kill the worker that owns the lane, or has just owned it, and start another."""
        assert self._rig is not None
        owner = self._rig.owner(topic) or ""
        victim = next((each for each in self._workers if f"-{each.pid}-" in owner), None)
        victim = victim or self._workers[0]
        victim.kill()
        self._workers[self._workers.index(victim)] = self._new_worker()


def _record(rig: Rig, text: str, topic: str) -> Any:
    """Record a message, and return its result: again with its id if Redis does not answer in time.

    On a machine that is busy with other work it may not.

    Raises:
        StoreUnavailable: Redis has not answered for a while.
    """
    context, bound = str(uuid.uuid4()), time.monotonic() + WAIT
    while True:
        try:
            return rig.produce.apply_async((text,), {"topic": topic}, task_id=context)
        except StoreUnavailable:
            if time.monotonic() > bound:
                raise


def report(runs: list[Run], control: Run | None) -> str:
    """What the page says of the runs."""
    total = sum(run.messages for run in runs)
    repeated = sum(run.deduplicated for run in runs)
    lines = [
        "| | |",
        "|---|---|",
        f"| runs, one seed each | {len(runs)} (seeds {runs[0].seed} to {runs[-1].seed}) |",
        f"| messages | {total:,} |",
        f"| workers killed with -9 | {sum(run.worker_kills for run in runs)} |",
        f"| brokers killed with -9 | {sum(run.broker_kills for run in runs)} |",
        f"| lost | {sum(run.lost for run in runs)} |",
        f"| twice in the topic | {sum(run.duplicates for run in runs)} |",
        f"| runs in order | {sum(run.in_order for run in runs)} |",
        f"| receipts for what an earlier send had stored | {repeated:,} |",
        f"| seconds a run, median | {statistics.median(run.seconds for run in runs):.0f} |",
    ]
    if control is not None:
        lines.append(
            f"| control, deduplication off (seed {control.seed}): twice in the topic | "
            f"{control.duplicates:,} of {control.messages:,} |"
        )
    lines += ["", f"Measured {datetime.now(UTC):%Y-%m-%d}."]
    return "\n".join(lines)


def write(text: str) -> None:
    """Put the report into its page."""
    page = _PAGE.read_text("utf-8")
    head, rest = page.split(_BEGIN)
    _, tail = rest.split(_END)
    _PAGE.write_text(f"{head}{_BEGIN}\n{text}\n{_END}{tail}", "utf-8")


def main(arguments: Any = None) -> int:
    """Run, print each run, and return 1 where one is not good."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--control", action="store_true", help="a run without deduplication, too")
    parser.add_argument("--write-docs", action="store_true")
    given = parser.parse_args(arguments)
    runs = []
    with tempfile.TemporaryDirectory() as folder, Bench(Path(folder)) as bench:
        for seed in range(given.seed, given.seed + given.runs):
            runs.append(bench.run(seed, given.messages))
            print(runs[-1], flush=True)
    control = None
    if given.control:
        with (
            tempfile.TemporaryDirectory() as folder,
            Bench(Path(folder), deduplication=False) as bench,
        ):
            control = bench.run(given.seed, given.messages)
        print(f"control, deduplication off: {control}", flush=True)
    if given.write_docs:
        write(report(runs, control))
    good = all(run.good for run in runs) and (control is None or control.duplicates > 0)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
