"""The world of one seed: servers, workers, callers, and what happens to them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import msgspec

from celery_stargate.delivery import keeper as keeper_module
from celery_stargate.delivery import settler as settler_module
from celery_stargate.delivery import source as source_module
from celery_stargate.delivery.shared import Services
from celery_stargate.delivery.supervisor import Supervisor
from celery_stargate.effects.run import callback_id
from celery_stargate.lanes import leased as leased_module
from celery_stargate.lanes.lane import Lane
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.outcome import Receipt
from celery_stargate.model.topic import Topic
from celery_stargate.pulsar.link import LinkBroken
from celery_stargate.support.log import package_logger as logger
from tests.simulation.broker import Broker, SimulatedProducer
from tests.simulation.callers import Caller
from tests.simulation.checker import check, left_in_redis
from tests.simulation.effects import SimulatedEffects
from tests.simulation.faults import Faults
from tests.simulation.ledger import Context, Ledger, Told, name_of
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.plan import Plan
from tests.simulation.redis_server import RedisServer, SimulatedRedis

__all__ = ["Result", "World", "run"]

_decode_receipt = msgspec.json.Decoder(Receipt).decode

#: What an owner logs that finds an older state in Redis.
_ALARM = "Redis came back"
#: Seconds for which everything is watched after all is done, so that late effects show. An idle
#: owner finds an unread backlog within three renewals, each a third of a lease apart.
_AFTERWARDS = 8.0


@dataclass(slots=True)
class Result:
    """The result of one seed."""

    plan: Plan
    #: The broken promises; none where all were kept.
    violations: list[str]
    trace: list[str]
    #: How often each fault struck.
    struck: Counter[str]
    #: When it ended, in virtual seconds.
    ended: float
    messages: int
    handled: int


class World:
    """Everything that one seed has."""

    def __init__(self, plan: Plan, *, traced: bool = False) -> None:
        self.plan = plan
        self.loop = VirtualLoop()
        # Not the generator that drew the plan, so that a plan can be changed by itself.
        self.random = random.Random(f"run {plan.seed}")
        self.faults = Faults(self.random, plan.rates)
        self.over = False
        self.healed_at: float | None = None
        self.trace: list[str] = []
        self.ledger = Ledger()
        self.redis = RedisServer(self, self._watch_script)
        self.broker = Broker(
            self,
            deduplicates=plan.deduplicates,
            idle=plan.idle,
            ping=plan.ping,
            ledger=self.ledger,
        )
        self.workers: list[_Worker | None] = [None] * plan.workers
        self.callers: list[tuple[Process, asyncio.Task[Any]]] = []
        self.traced = traced
        self._draw = self.random.random
        self._latency = plan.latency
        self._started = 0
        self._revoked: set[str] = set()
        self._uuids = 0

    # What the servers and clients ask.

    def latency(self) -> float:
        """Draw a latency, in seconds."""
        return self._draw() * self._latency

    def strike(self, process: Process, where: str) -> bool:
        """Crash or pause a worker here, perhaps; return whether it was done."""
        fault = self.faults.pick("step")
        if fault is None or not process.alive or not self._is_worker(process):
            return False
        self.note(f"{process.name}: {fault}: {where}")
        if fault == "crash at a step":
            self._kill(process)
        else:
            self._pause(process)
        return True

    def note(self, text: str) -> None:
        """Write a line of the trace."""
        if self.traced:
            self.trace.append(f"{self.loop.now:10.4f} {text}")

    def uuid4(self) -> Any:
        """Replace `uuid.uuid4` by a counter."""
        self._uuids += 1
        return SimpleNamespace(hex=f"{self._uuids:032x}")

    # The run.

    def run(self) -> Result:
        """Run to the end, and check."""
        plan, loop, ledger = self.plan, self.loop, self.ledger
        for slot in range(plan.workers):
            loop.outside(self._draw() * 0.5, self._start_worker, slot)
        shares = [plan.calls // plan.callers] * plan.callers
        for number, count in enumerate(shares):
            process = Process(loop, f"caller{number}")
            caller = Caller(self, plan, ledger, self.redis, process)
            self.callers.append((process, process.start(caller.run(count))))
        for at, name in plan.moments:
            loop.outside(at, self._happen, name)
        if plan.restored is not None:
            loop.outside(plan.restored[0], self._copy_redis)
        with _patched(self):
            if not loop.advance(self._settled, plan.heal_at):
                self.note("all faults are healed")
            self.heal()
            bound = self._bound()
            end = loop.now + bound
            settled = loop.advance(self._settled, end)
            while settled and loop.now < end:
                loop.advance(lambda: False, loop.now + _AFTERWARDS)
                if self._settled():
                    break
                # Something came late, and has to be settled, too.
                settled = loop.advance(self._settled, end)
            violations = [*ledger.wrong, *check(self, settled, bound)]
            ended, handled = loop.now, loop.handled
            self._end()
        return Result(
            plan, violations, self.trace, self.faults.struck, ended, self._messages(), handled
        )

    def heal(self) -> None:
        """Switch all faults off, and resume all processes."""
        self.healed_at = self.loop.now
        self.faults.heal()
        self.redis.away = None
        self.broker.up = True
        self.broker.forbidden = 0
        for slot, worker in enumerate(self.workers):
            if worker is None:
                self.loop.outside(0.1, self._start_worker, slot)
            else:
                worker.process.resume()

    def _settled(self) -> bool:
        if self.ledger.open or not all(
            task.done() or not process.alive for process, task in self.callers
        ):
            return False
        # What was told before Redis went back to its copy is sent again, and nobody waits for it.
        return self.plan.restored is None or not any(left_in_redis(self))

    def _bound(self) -> float:
        """Seconds in which everything must be settled and told once all is healed."""
        settings, plan = self.plan.settings, self.plan
        silent = max(plan.idle, plan.ping + settings.receipt_timeout)
        # A lease expires, a producer name becomes free, the longest backoff, effects that were left
        # over. Or a deadline passes, where no acknowledger is left.
        return settings.lease + silent + settings.open_timeout + 10.0 + 20.0 + 15.0 + 15.0

    def _messages(self) -> int:
        return sum(len(context.labels) for context in self.ledger.contexts.values())

    def _end(self) -> None:
        self.over = True
        for process in self.loop.processes:
            process.alive = True
            process.release()
        self.loop.bury()
        self.loop.close()

    # Workers.

    def _is_worker(self, process: Process) -> bool:
        return any(each is not None and each.process is process for each in self.workers)

    def _start_worker(self, slot: int) -> None:
        if self.over or self.workers[slot] is not None:
            return
        self._started += 1
        worker = self.workers[slot] = _Worker(self, f"worker{self._started}")
        self.note(f"{worker.process.name}: starts")
        worker.task.add_done_callback(lambda _: self._ended(worker))

    def _ended(self, worker: _Worker) -> None:
        if worker in self.workers:
            slot = self.workers.index(worker)
            self.workers[slot] = None
            if not self.over:
                self.note(f"{worker.process.name}: has ended")
                self.loop.outside(self._draw() * 3.0, self._start_worker, slot)

    def _kill(self, process: Process) -> None:
        for slot, worker in enumerate(self.workers):
            if worker is not None and worker.process is process:
                self.workers[slot] = None
                again = 0.1 if self.healed_at is not None else self._draw() * 8.0
                self.loop.outside(again, self._start_worker, slot)
        process.kill()
        for link in self.broker.links_of(process):
            link.let_go(word=self._draw() < 0.5)

    def _pause(self, process: Process) -> None:
        seconds = self.plan.settings.lease * self._draw() * 3.0
        if process.held is not None:
            return
        process.pause()
        self.note(f"{process.name}: is paused for {seconds:.1f} s")
        self.loop.outside(seconds, process.resume)
        if seconds > self.plan.idle:
            for link in self.broker.links_of(process):
                self.loop.outside(self.plan.idle, link.drop)

    def revoked(self, context: str) -> bool:
        """Whether a context was revoked."""
        return context in self._revoked

    # What happens at a moment.

    def _happen(self, name: str) -> None:
        if self.healed_at is not None:
            return
        self.faults.struck[name] += 1
        self.note(f"*** {name}")
        draw, loop = self._draw, self.loop
        running = [each for each in self.workers if each is not None and each.process.alive]
        match name:
            case "Redis away":
                self.redis.leave(self.random.choice(("refuses", "hangs")))
                loop.outside(draw() * 12.0, self._redis_is_back)
            case "clock jump":
                self.redis.skew_ms += round(self.random.uniform(-5000, 15000))
            case "broker restart":
                self.broker.stop()
                loop.outside(draw() * 5.0, self._broker_is_back)
            case "topic forbidden":
                self.broker.forbidden = self.random.choice((400, 401, 403, 404))
                loop.outside(draw() * 3.0, self._topic_is_allowed)
            case "revoked":
                names = [f"caller{i}.{n}" for i in range(2) for n in range(self.plan.calls)]
                self._revoked.update(self.random.sample(names, len(names) // 4))
            case "caller dies":
                self.random.choice(self.callers)[0].kill()
            case _ if running:
                self._happen_to(name, self.random.choice(running))

    def _happen_to(self, name: str, worker: _Worker) -> None:
        match name:
            case "crash":
                self._kill(worker.process)
            case "pause":
                self._pause(worker.process)
            case "stop":
                worker.process.call(
                    partial(worker.supervisor.stop, self.plan.settings.drain_timeout)
                )
            case "links cut":
                for link in self.broker.links_of(worker.process):
                    link.cut()

    def _redis_is_back(self) -> None:
        self.redis.away = None

    def _broker_is_back(self) -> None:
        self.broker.up = True

    def _topic_is_allowed(self) -> None:
        self.broker.forbidden = 0

    def _copy_redis(self) -> None:
        assert self.plan.restored is not None
        copied_at, back_at = self.plan.restored
        self.note("*** the data of Redis is copied")
        copy = self.redis.model.snapshot()
        self.loop.outside(back_at - copied_at, self._restore_redis, copy)

    def _restore_redis(self, copy: bytes) -> None:
        if self.over:
            return
        self.note("*** Redis goes back to the copy")
        self.faults.struck["Redis restored from an older state"] += 1
        self.redis.leave("refuses")
        for worker in self.workers:
            if worker is not None and not self.plan.owners_survive:
                self._kill(worker.process)
        self.redis.model.restore(copy)
        assert self.plan.restored is not None
        self.ledger.restored(self.plan.restored[0], self._holds)
        self.loop.outside(self._draw(), self._redis_is_back)

    def _holds(self, context: Context) -> bool:
        key = Lane.parse(context.lane).key(self.plan.settings.prefix, "contexts")
        record = self.redis.model.hash(key).get(context.context.encode())
        return record is not None and name_of(record) == context.name

    # What is noted.

    def _watch_script(
        self, name: str, keys: Sequence[str], args: Sequence[Any], reply: Any
    ) -> None:
        now_ms = self.redis.now_ms()
        self.ledger.watch_script(self.loop.now, now_ms, _lane_of(keys[0]), name, args, reply)
        published, self.redis.model.published = self.redis.model.published, []
        for key, value in published:
            self._tell(key.removeprefix("result:"), _decode_receipt(value))
        if self.traced and name not in ("tick", "read"):
            self.note(f"redis: {name} {_lane_of(keys[0])} {_short(args)} -> {reply}")

    def _tell(self, name: str, receipt: Receipt) -> None:
        """Note a result that was stored in the step that settled."""
        callback = callback_id(receipt.context, name, "on_ack")
        self.ledger.notify(name, Told(self.loop.now, "worker", callback, (receipt,)))


class SimulatedProducers:
    """Make producers over the simulated broker.

    Arguments:
        world: has the broker.
        process: whose producers they are.
        open_timeout: seconds for opening one.
    """

    def __init__(self, world: World, process: Process, open_timeout: float) -> None:
        self._world = world
        self._process = process
        self._open_timeout = open_timeout

    def make(
        self, topic: Topic, options: ProducerOptions, query: Mapping[str, str]
    ) -> SimulatedProducer:
        """Return a producer that is not open yet."""
        broker, timeout = self._world.broker, self._open_timeout
        return SimulatedProducer(broker, self._process, topic, options, query, timeout)

    async def require_deduplication(self, topic: Topic, options: ProducerOptions) -> None:
        """Answer after a while, or not."""
        await asyncio.sleep(self._world.latency())
        if self._world.over or self._world.faults.pick("open"):
            raise LinkBroken("nobody answers")


class _Worker:
    """A producer worker: a process with a supervisor."""

    def __init__(self, world: World, name: str) -> None:
        plan = world.plan
        self.process = process = Process(world.loop, name)
        effects = SimulatedEffects(world, world.ledger, process)

        clients = [SimulatedRedis(world, world.redis, process) for _ in range(2)]
        services = Services(
            producers=cast("Any", SimulatedProducers(world, process, plan.settings.open_timeout)),
            effects=cast("Any", effects),
            thread=effects.thread,
            revoked=world.revoked,
        )

        async def run() -> None:
            self.supervisor = Supervisor(
                plan.settings,
                cast("Any", clients[0]),
                cast("Any", clients[1]),
                services,
                name=name,
                rng=world.random,
                monotonic=world.loop.time,
            )
            try:
                await self.supervisor.run()
            except Exception as error:  # noqa: BLE001
                world.ledger.wrong.append(f"{name}: its supervisor failed: {error!r}")

        self.task = process.start(run())


class _Errors(logging.Handler):
    """Notes what the package must not log here: an exception, or that Redis forgot something."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not self._world.over:
            error = record.exc_info[1]
            self._world.ledger.wrong.append(f"{record.getMessage()}: {error!r}")
        if self._world.plan.restored is None and _ALARM in record.getMessage():
            self._world.ledger.wrong.append(f"a false alarm: {record.getMessage()}")


class _Lines(logging.Handler):
    """Writes what the package logs into the trace."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.note(f"log: {record.getMessage()}")


@contextmanager
def _patched(world: World) -> Iterator[None]:
    """Give the package the world's ids, and read its log."""
    fake = SimpleNamespace(uuid4=world.uuid4)
    before = logger.level, logger.propagate
    handlers = [_Errors(world), *([_Lines(world)] if world.traced else [])]
    logger.setLevel(logging.DEBUG if world.traced else logging.ERROR)
    logger.propagate = False
    for each in handlers:
        logger.addHandler(each)
    try:
        with ExitStack() as patches:
            for module in (settler_module, leased_module):
                patches.enter_context(mock.patch.object(module, "uuid", fake))
            patched = mock.patch.object(keeper_module, "RETIRE_AFTER", world.plan.retire_after)
            patches.enter_context(patched)
            if world.plan.reads_large:
                patches.enter_context(mock.patch.object(source_module, "_LARGE", 0))
            yield
    finally:
        for each in handlers:
            logger.removeHandler(each)
        level, logger.propagate = before
        logger.setLevel(level)


def _lane_of(log_key: str) -> str:
    return log_key[log_key.index("{") + 1 : log_key.index("}")]


def _short(args: Sequence[Any]) -> str:
    return " ".join(each if isinstance(each, str) else repr(each) for each in args)[:300]


def run(plan: Plan, *, traced: bool = False) -> Result:
    """Run a plan."""
    return World(plan, traced=traced).run()
