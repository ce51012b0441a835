"""How the cost grows: `python -m benchmarks.growth`. See the README beside this."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from redis import Redis

from celery_stargate import Message, Receipt
from celery_stargate.lanes.connections import Connections
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.leased import LeasedLane
from celery_stargate.lanes.outbox import Outbox
from celery_stargate.lanes.record import Record, Settled, encode_record
from celery_stargate.model.frame import encode_frame
from tests.servers.redis import RedisServer

from .app import WINDOWS, Config
from .bare_log import BareLog
from .bounded import bounded, end_on_sigterm, tell
from .figures import Group, Spread, make_groups, spread
from .growth_figures import (
    Growth,
    Idle,
    Level,
    Size,
    render_costs,
    render_idle,
    render_memory,
    render_sizes,
    render_window,
)
from .machine import describe_machine
from .pages import RESULTS, save, write_pages
from .payload import PAYLOAD, payload
from .rivals.bulk import Bulk
from .runner import Rival, TooLong, reason_of, run_rounds
from .site import BenchmarkError, Site

_LEVELS, _QUICK_LEVELS = (1000, 10_000, 100_000, 1_000_000), (1000, 5000)
#: A round is short, and what else the machine does shows in it.
_ROUNDS, _QUICK_ROUNDS = 28, 2
_IDLE_LANES, _QUICK_IDLE_LANES = 1000, 50
#: Seconds for each of the parts; what is not done by then has no figures.
_BOUNDS = {"levels": 200, "sizes": 30, "memory": 40, "idle": 60, "window": 60}
#: How many messages one look at a level puts, reads, settles and finishes.
_SAMPLE = 1000
_LEASE = 10.0
#: Bytes of the payloads of which Redis' memory is looked at, and how many bytes of them.
_SIZES, _SIZES_BYTES = (100, 1000, 10_000, 100_000, 500_000), 20_000_000


class _Full:
    """A Redis of its own, with a lane that holds so many contexts."""

    def __init__(self, server: RedisServer, config: Config, pending: int, message: Message) -> None:
        self.config, self.pending, self._message = config, pending, message
        self.client = Redis.from_url(server.url)
        self.lane = Lane(config.topic("lane"))
        self._prefix = f"{config.prefix}stargate"
        self._lanes = Outbox(Connections(server.url), self._prefix)
        self._runner = asyncio.Runner()
        self._redis = Connections(server.url).asyncio()
        self.store = LeasedLane(self._redis, self._prefix, self.lane, "growth", 600.0)
        self.samples: dict[str, list[float]] = {}
        self.total_bytes = self.record_bytes = 0.0

    def close(self) -> None:
        self._runner.run(self._redis.aclose())
        self._runner.close()
        self._lanes.close()
        self.client.close()

    def do(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(call)

    def put(self, count: int) -> None:
        contexts = [str(uuid.uuid4()) for _ in range(count)]
        puts = [
            (self.lane, Record(each), encode_frame(self._message, each, 1 << 20))
            for each in contexts
        ]
        self.record_bytes = mean(len(encode_record(each)) + len(frame) for _, each, frame in puts)
        self._lanes.put_many(puts, timeout=86_400.0)

    def fill(self) -> None:
        """Put what is to be pending, and see what Redis needs for it."""
        self.put(1)
        before = self._memory()
        for start in range(0, self.pending, 10_000):
            self.put(min(10_000, self.pending - start))
        self.total_bytes = (self._memory() - before) / self.pending
        if not self.do(self.store.acquire()):
            raise BenchmarkError("the lane has an owner already")

    def _memory(self) -> int:
        # What a repeated put would need is gone after a while.
        for keys in _batches(list(self.client.scan_iter("*:answers:*", count=1000))):
            self.client.delete(*keys)
        return int(self.client.info("memory")["used_memory"])

    def sample(self) -> None:
        """Put, read, settle and finish some, and note Redis' own time in the scripts."""
        self._timed("put", lambda: self.put(_SAMPLE))
        entries: list[Any] = []
        self._timed(
            "read", lambda: entries.extend(self.do(self.store.read(0, _SAMPLE, 1 << 30, mark=True)))
        )
        outcomes = [
            (each, Receipt(context=each.context, topic=self.lane.topic, ledger_id=1))
            for each in entries
        ]

        def settle() -> None:
            for batch in _batches(outcomes, 200):
                self.do(self.store.settle(batch, uuid.uuid4().hex))

        def finish() -> None:
            for batch in _batches(entries, 100):
                done = [Settled(Record(each.context), (), each.first) for each in batch]
                self.do(self.store.finish(done))

        self._timed("settle", settle)
        self._timed("finish", finish)
        if len(entries) != _SAMPLE:
            raise BenchmarkError(f"{len(entries)} of {_SAMPLE} messages were read")

    def _timed(self, name: str, work: Callable[[], None]) -> None:
        self.client.config_resetstat()
        work()
        spent = self.client.info("commandstats")["cmdstat_evalsha"]["usec"]
        self.samples.setdefault(name, []).append(spent / _SAMPLE)

    def release(self) -> None:
        """Let a worker have the lane."""
        self.do(self.store.release())


_MESSAGE = Message(payload=PAYLOAD)


def measure_sizes(server: RedisServer, config: Config) -> tuple[Size, ...]:
    """Return what Redis needs for messages of each size."""
    found = []
    for size in _SIZES:
        count = _SIZES_BYTES // max(size, 2000)
        full = _Full(server, config, count, Message(payload(size)))
        try:
            full.fill()
            full.client.flushall()
            bare = _bare_memory(full.client, config, payload(size), count)
        finally:
            full.close()
        found.append(Size(size, full.record_bytes, full.total_bytes, bare))
    return tuple(found)


def _bare_memory(client: Redis, config: Config, message: str, count: int) -> float:
    """Return what Redis needs for a message in a bare log, and empty Redis again.

    Beside it, a byte is kept of its context, and its deadline: a hash and a sorted set by its id.
    """
    log = BareLog(config, client, "bare")
    records, deadlines = f"{config.prefix}records", f"{config.prefix}deadlines"

    def put(number: int) -> None:
        ids = log.put([message] * number, "")
        client.hset(records, mapping=dict.fromkeys(ids, "1"))
        client.zadd(deadlines, {each: time.time() for each in ids})

    put(1)
    before = int(client.info("memory")["used_memory"])
    put(count)
    needed = int(client.info("memory")["used_memory"]) - before
    client.flushall()
    return needed / count


def _batches(items: Sequence[Any], size: int = 1000) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def measure_levels(site: Site, full: Sequence[_Full], rounds: int) -> None:
    """Fill the lanes, then look at each in every round."""
    for each in full:
        tell(f"filling a lane with {each.pending:,}")
        each.fill()
    for number in range(rounds + 1):
        for each in full:
            each.sample()
        if number == 0:  # caches are warm now
            for each in full:
                each.samples.clear()


def measure_memory(site: Site, full: _Full, seconds: float) -> float:
    """Return the most MiB that a worker's main process held while it drained for some seconds."""
    full.release()
    worker = site.worker(f"memory-{full.pending}", "-P", "solo", config=full.config)
    with worker.awake():
        time.sleep(seconds)
        status = Path(f"/proc/{worker.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    left = full.client.hlen(full.lane.key(f"{full.config.prefix}stargate", "contexts"))
    if left >= full.pending:
        raise BenchmarkError("the worker drained nothing")
    return int(line.split()[1]) / 1024


def measure_idle(site: Site, config: Config, lanes: int, samples: int) -> Idle:
    """Return what lanes cost that had one context each, and have nothing any more."""
    callers = Outbox(Connections(config.redis_url), f"{config.prefix}stargate")
    for number in range(lanes):
        lane = Lane(config.topic(f"idle-{number}"))
        callers.put(lane, Record("c"), [("c", b"{}")], timeout=60.0)
        _, settled = callers.settle(lane, Receipt(context="c", topic=lane.topic))
        if settled is None:
            raise BenchmarkError("a context that was put just now cannot be settled")
        callers.finish(lane, [settled])
    callers.close()
    worker = site.worker("idle", "-P", "solo", config=config)
    with worker.awake(), Redis.from_url(config.redis_url) as client:
        leases = f"{config.prefix}stargate:{{*idle-*}}:lease"
        site.wait_until(
            worker, lambda: sum(1 for _ in client.scan_iter(leases, count=10_000)) >= lanes
        )
        time.sleep(2.0)
        found = []
        # Leases are renewed three times in one.
        for _ in range(samples):
            before = _cpu_seconds(worker.pid)
            time.sleep(config.lease)
            found.append(100 * (_cpu_seconds(worker.pid) - before) / config.lease)
    return Idle(lanes, spread(found), config.lease)


def _cpu_seconds(pid: int) -> float:
    # By the scheduler's count: the clock ticks of `stat` are a third of what is looked for.
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9


def _window(size: int) -> Rival:
    class Window(Bulk):
        group = "window"
        name = f"window-{size}"
        title = f"`max_in_flight={size}`"
        count = min(4000, 300 + 120 * size)
        topic = f"window-{size}"
        backlog = True

    return Window()


_WINDOW_WORDS = (
    "Messages in flight",
    "A backlog of one lane, drained by one worker, unbatched.",
    "per_second",
)


def measure_window(site: Site, share: float, rounds: int, left_out: dict[str, str]) -> Group | None:
    """Return the drain's rate for each window."""
    rivals = [_window(size) for size in WINDOWS]
    for rival in rivals:
        rival.setup(site)
    samples = run_rounds(
        rivals,
        rounds=rounds,
        share=share,
        seconds=45.0,
        clock=time.monotonic,
        tell=tell,
        left_out=left_out,
    )
    groups = make_groups(samples, {"window": _WINDOW_WORDS})
    return groups[0] if groups else None


def measure(*, quick: bool, now: datetime) -> Growth:
    """Measure each part within its bound."""
    machine, left_out = describe_machine(), dict[str, str]()
    levels: list[Level] = []
    idle, window = None, None

    def attempt(name: str, work: Callable[[], Any]) -> Any:
        tell(f"{name}:")
        try:
            with bounded(_BOUNDS[name.partition(" ")[0]]):
                return work()
        except TooLong:
            left_out[name] = "it took too long"
        except Exception as error:  # noqa: BLE001  # told, and the other parts go on
            left_out[name] = reason_of(error)
            tell(f"{name}: FAILED, no figures: {error}")
        return None

    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="stargate-growth-")))
        site = running.enter_context(Site())

        def own_redis(name: str, lease: float) -> tuple[RedisServer, Config]:
            server = running.enter_context(RedisServer(folder / name))
            config = site.config
            return server, Config(
                server.url, config.pulsar_url, config.service_url, config.prefix, lease
            )

        full = []
        for pending in _QUICK_LEVELS if quick else _LEVELS:
            each = _Full(*own_redis(f"redis-{pending}", _LEASE), pending, _MESSAGE)
            running.callback(each.close)
            full.append(each)
        rounds = _QUICK_ROUNDS if quick else _ROUNDS
        attempt("levels", lambda: measure_levels(site, full, rounds))
        if "levels" not in left_out:
            for each in full:
                held = attempt(
                    f"memory at {each.pending:,}",
                    partial(measure_memory, site, each, 2.0 if quick else 8.0),
                )
                levels.append(_level(each, held))
                each.client.flushall()
        of_sizes = own_redis("redis-sizes", _LEASE)
        sizes = attempt("sizes", lambda: measure_sizes(*of_sizes)) or ()
        _, config = own_redis("redis-idle", _LEASE)
        lanes = _QUICK_IDLE_LANES if quick else _IDLE_LANES
        idle = attempt("idle", lambda: measure_idle(site, config, lanes, 1 if quick else 3))
        share = 0.1 if quick else 1.0
        window = attempt("window", lambda: measure_window(site, share, 1 if quick else 3, left_out))
    date = now.isoformat(timespec="seconds")
    return Growth(date, machine, tuple(levels), idle, window, left_out, sizes)


def _level(full: _Full, held: float | None) -> Level:
    times: dict[str, Spread] = {name: spread(values) for name, values in full.samples.items()}
    return Level(
        full.pending,
        times["put"],
        times["read"],
        times["settle"],
        times["finish"],
        full.total_bytes,
        full.record_bytes,
        held,
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that all runs")
    parser.add_argument("--output", type=Path, help="the folder that gets the JSON (results)")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the tables and plots into the pages"
    )
    options = parser.parse_args(arguments)
    if options.quick and options.write_docs:
        parser.error("--write-docs needs a whole run")
    found = measure(quick=options.quick, now=datetime.now(UTC))
    for words in (render_costs, render_memory, render_sizes, render_idle, render_window):
        print(words(found))
    for name, reason in found.left_out.items():
        print(f"left out: {name}: {reason}")
    if options.output is not None or not options.quick:
        save("growth", found, options.output or RESULTS)
    if options.write_docs:
        write_pages()
    return 0 if found.levels else 1


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
