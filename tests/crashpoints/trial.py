"""One run at one crash point: real processes, a ledger, and what the checker makes of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from celery_stargate import Acknowledger, ProduceError
from celery_stargate.testing import LocalPulsar
from tests.acceptance.rig import Rig, Worker, eventually
from tests.acceptance.tasks import CONF, LOG_URL
from tests.crashpoints.caller import CallPlan, call_all
from tests.crashpoints.hooks import ARMED, Crash
from tests.crashpoints.steps import Point
from tests.faults.checker import Promise, Sets, check
from tests.faults.ledger import Ledger, read_ledger
from tests.servers.admin import PulsarAdmin
from tests.servers.process import ServerProcess
from tests.servers.pulsar import PulsarServer
from tests.servers.redis import RedisServer

__all__ = ["DELIVERIES", "Result", "Theatre"]

DELIVERIES = ("at_least_once", "effectively_once")
#: The lease in these runs, and a stall that is longer, in seconds.
LEASE, STALL = 1.0, 2.5
#: The deadline of each message, and the bound on the wait for all outcomes, in seconds.
TIMEOUT, PATIENCE = 90.0, 60.0
_CALLBACK_EVERY = 4
#: How many calls wait for their receipt meanwhile.
_WAITING = 4
_ROOT = Path(__file__).parents[2]


class Topics(Protocol):
    """A Pulsar, or its stand-in."""

    @property
    def url(self) -> str:
        """Its WebSocket service."""

    @property
    def http_url(self) -> str:
        """Its admin API."""


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    point: Point
    delivery: str
    nth: int
    sets: Sets
    broken: tuple[str, ...]
    seconds: float
    ledger: Path

    @property
    def good(self) -> bool:
        """Whether every promise held."""
        return not self.broken

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return {
            "point": self.point.name,
            "delivery": self.delivery,
            "nth": self.nth,
            "good": self.good,
            "broken": list(self.broken),
            "seconds": round(self.seconds, 1),
            **self.sets.counts(),
        }

    def __str__(self) -> str:
        counts = self.sets.counts()
        line = (
            f"{'ok' if self.good else 'BROKEN'} {self.point.name} ({self.delivery}, time "
            f"{self.nth}): {counts['accepted']} accepted, {counts['found']} found, "
            f"{counts['duplicated']} copies, {counts['callbacks_repeated']} callbacks repeated; "
            f"{self.seconds:.0f} s"
        )
        return "\n".join([line, *(f"    {each}" for each in self.broken)])


class Theatre:
    """The servers that all runs share, and the worker that records callbacks. A context manager.

    Args:
        folder: for ledgers, data and logs.
        real: whether Pulsar is the real one.
    """

    def __init__(self, folder: Path, *, real: bool = False) -> None:
        self._folder, self._real = folder, real
        self._open = ExitStack()
        self._rigs: dict[str, Rig] = {}
        self._count = 0

    def __enter__(self) -> Self:
        enter = self._open.enter_context
        self._folder.mkdir(parents=True, exist_ok=True)
        self._redis = enter(RedisServer(self._folder / "redis"))
        self._pulsar: Any = (
            enter(PulsarServer(self._folder / "pulsar")) if self._real else enter(LocalPulsar())
        )
        recorder = self._rig(DELIVERIES[0]).worker(
            pool="solo", args=("--without-stargate", "-Q", "callbacks")
        )
        self._open.callback(recorder.kill)
        recorder.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _rig(self, delivery: str) -> Rig:
        if delivery not in self._rigs:
            conf = {
                "stargate_lease": LEASE,
                "stargate_delivery": delivery,
                "stargate_own_lanes": "worker",
                # Celery itself loses tasks that a killed worker had taken.
                "task_routes": {"acceptance.record": {"queue": "callbacks"}},
            }
            admin = PulsarAdmin(self._pulsar.http_url)
            rig = Rig(self._pulsar.url, admin, self._redis.url, self._folder, conf)
            self._rigs[delivery] = self._open.enter_context(rig)
        return self._rigs[delivery]

    def run(self, point: Point, delivery: str, *, nth: int, messages: int) -> Result:
        """Run to all outcomes, and look.

        Args:
            point: where it crashes.
            nth: at which time that the step is taken.
            messages: how many calls there are.
        """
        began = time.monotonic()
        self._count += 1
        place = self._folder / f"{self._count}-{point.name}"
        place.mkdir()
        rig = self._rig(delivery)
        crash = Crash(
            step=point.step.name,
            when=point.when,
            action=point.action,
            nth=1 if point.step.once else nth,
            stall=STALL,
            ledger=str(place),
            who="crashing",
        )
        plan = CallPlan(
            ledger=str(place),
            topic=rig.topic(),
            name=f"{rig.name}-{self._count}",
            count=messages,
            callback_every=_CALLBACK_EVERY,
            acked=rig.key(),
            failed=rig.key(),
            timeout=TIMEOUT,
            who="caller",
        )
        with Ledger(place, "runner") as ledger:
            try:
                self._play(rig, point, crash, plan, ledger)
            finally:
                self._look(rig, plan, ledger)
        sets = check(read_ledger(place))
        copies = messages + _WAITING if delivery == DELIVERIES[0] else 0
        broken = sets.broken(Promise(duplicates=copies))
        if not sets.strikes:
            broken.append("the step was never taken: nothing was tried")
        return Result(point, delivery, nth, sets, tuple(broken), time.monotonic() - began, place)

    def passed(self, messages: int = 20) -> set[str]:
        """Run without a crash; return the steps that were passed."""
        place = self._folder / "undisturbed"
        place.mkdir()
        rig = self._rig(DELIVERIES[0])
        crash = Crash("", "", "", 0, 0.0, str(place), "crashing")
        plan = CallPlan(
            str(place), rig.topic(), rig.name, messages, 4, rig.key(), rig.key(), TIMEOUT, "caller"
        )
        with Ledger(place, "runner") as ledger, _victim(rig, crash):
            self._caller(rig, plan, crash).wait_for_end()
            for each in _waiting(rig, plan, ledger):
                assert each is None
            self._look(rig, plan, ledger)
        return {each["step"] for each in read_ledger(place) if each["event"] == "passed"}

    def _play(self, rig: Rig, point: Point, crash: Crash, plan: CallPlan, ledger: Ledger) -> None:
        armed = Path(plan.ledger) / ARMED
        if point.step.caller:
            armed.touch()
            with Acknowledger(rig.app):
                first = self._caller(rig, plan, crash)
                first.wait_for_end()
                # Behind one that was killed comes one that makes the calls again.
                self._caller(rig, replace(plan, who="caller-2"), None).wait_for_end()
                self._await_outcomes(rig, plan, ledger)
            return
        with _victim(rig, crash) as victim, ThreadPoolExecutor(1) as beside:
            armed.touch()
            waiting = beside.submit(lambda: list(_waiting(rig, plan, ledger)))
            with Ledger(Path(plan.ledger), "caller") as own:
                call_all(rig.app, plan, own)
            eventually(lambda: _struck(plan) or not victim.alive, 20)
            if point.action == "exception":
                self._await_outcomes(rig, plan, ledger)
                waiting.result()
                return
            # Somebody else is there, as soon as the first one is gone or stands still.
            with Acknowledger(rig.app):
                self._await_outcomes(rig, plan, ledger)
                waiting.result()

    def _caller(self, rig: Rig, plan: CallPlan, crash: Crash | None) -> _Process:
        env = {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            CONF: json.dumps(rig.conf),
            LOG_URL: rig.redis_url,
            **(crash.environment() if crash else {}),
        }
        log = Path(plan.ledger) / f"{plan.who}.log"
        made = ServerProcess(plan.who, plan.command(), log_path=log, env=env, cwd=_ROOT)
        process = _Process(made)
        process.start()
        return process

    def _await_outcomes(self, rig: Rig, plan: CallPlan, ledger: Ledger) -> None:
        """Wait for the result of each call that was accepted."""
        events = list(read_ledger(Path(plan.ledger)))
        ids = [each["id"] for each in events if each["event"] == "accepted"]
        ends = time.monotonic() + PATIENCE
        for id_ in ids:
            result: Any = rig.produce.AsyncResult(id_)
            try:
                found = result.get(timeout=max(0.1, ends - time.monotonic()))
                status = found["status"]
            except ProduceError as error:
                status = error.status
            except TimeoutError:
                continue
            ledger.note("outcome", id=id_, status=status)
        wanted = {e["id"] for e in events if e["event"] == "attempt" and e["callback"]}
        told: set[str] = set()

        def all_told() -> bool:
            told.update(each["argument"]["context"] for each in rig.recorded(plan.acked, 0, 0))
            return wanted <= told

        eventually(all_told, max(0.1, ends - time.monotonic()))

    def _look(self, rig: Rig, plan: CallPlan, ledger: Ledger) -> None:
        """Note the callbacks, and what is in the topic."""
        for which, key in (("on_ack", plan.acked), ("on_error", plan.failed)):
            for each in rig.recorded(key, 0, 0):
                ledger.note(
                    "callback", id=each["argument"]["context"], which=which, task=each["id"]
                )
        if self._real:
            texts = rig.texts(plan.topic)
        else:
            texts = [each.decode() for each in self._pulsar.payloads(plan.topic)]
        for text in texts:
            ledger.note("found", id=text)


class _Process:
    """A process that ends by itself, or is killed by its crash."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process

    def start(self) -> None:
        """Start it, and do not wait."""
        self._process.start(lambda: True, timeout=10)

    def wait_for_end(self) -> None:
        """Wait until it has ended.

        Raises:
            AssertionError: it did not.
        """
        try:
            assert eventually(lambda: not self._process.alive, PATIENCE), self._process.log_tail()
        finally:
            self._process.kill()


@contextmanager
def _victim(rig: Rig, crash: Crash) -> Iterator[Worker]:
    """The worker that crashes; whatever is left of it is killed at the end."""
    worker = rig.worker(
        pool="solo",
        # At INFO each result has its line, so none is stored in the step that settles.
        args=("-I", "tests.crashpoints.hooks", "-Q", "nothing", "--loglevel", "WARNING"),
        env=crash.environment(),
    )
    try:
        yield worker.start()
    finally:
        worker.kill()


def _struck(plan: CallPlan) -> bool:
    return any(each["event"] == "strike" for each in read_ledger(Path(plan.ledger)))


def _waiting(rig: Rig, plan: CallPlan, ledger: Ledger) -> Iterator[None]:
    """Make calls that wait for their receipts, one after the other; every second is a list.

    One that is none is notified in the step that settles it.
    """
    for number in range(_WAITING):
        id_ = f"{plan.name}-wait-{number}"
        ledger.note("attempt", id=id_, lane=None, number=0, timeout=TIMEOUT, callback=False)
        began, status = time.monotonic(), None
        try:
            message: Any = id_ if number % 2 else [id_]
            found: Any = rig.stargate.produce(
                message, topic=plan.topic, timeout=TIMEOUT, context=id_
            )
            status = found.status if number % 2 else found[0].status
        except ProduceError as error:
            status = error.status
        took = time.monotonic() - began
        ledger.note("wait", id=id_, took=took, timeout=TIMEOUT, status=status, error=None)
        yield
