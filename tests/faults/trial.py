"""One run of one kind of fault: servers, workers and callers of its own, and their ledger."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import redis
from redis.exceptions import RedisError

from celery_stargate.lanes.lane import Lane
from tests.acceptance.rig import HERE, Installation, Rig, Worker, eventually
from tests.acceptance.tasks import CONF, LOG_URL
from tests.faults.caller import Allowance, CallerPlan
from tests.faults.calling import Caller, Tail
from tests.faults.checker import GRACE, check
from tests.faults.environment import CLOCK_JUMPS, Clock
from tests.faults.ledger import Ledger, read_ledger
from tests.faults.plan import Plan, Result, promise_of
from tests.faults.proxy import ToxicProxy
from tests.faults.release import last_release
from tests.integration.rig import Reader
from tests.servers.fixtures import PulsarAddress
from tests.servers.pulsar import PulsarServer
from tests.servers.redis import RedisServer

__all__ = ["CALLERS", "IDLE_SESSION", "LEASE", "TIMEOUT", "Trial"]

#: The lease in these runs, in seconds.
LEASE = 3.0
#: After so many seconds without a ping the broker of these runs drops a session.
IDLE_SESSION = 6.0
CALLERS = 2
#: The deadline of each message, and of those whose caller waits, in seconds.
TIMEOUT, WAIT_TIMEOUT = 150.0, 8.0
#: Each message of such a number has callbacks; in a long run, where they would take longer than all
#: else, fewer.
_CALLBACK_EVERY, _SELDOM, _LONG = 10, 30, 10_000
#: Seconds between calls that wait, of each caller.
_WAIT_EVERY = 0.5
#: How late what Pulsar gets and says is, in seconds.
_LATENCY = 0.02
#: The bound on the wait for a mark, in seconds: this, and one for so many of the run's messages.
_PATIENCE, _SLOWEST = 120.0, 200
#: For how long what is in flight does not grow any more, in seconds.
_STILL = 1.0
#: More than an id has.
_ID = 200


class Trial:
    """One run. What faults need is public; it has more methods than a class should, because a fault
    may touch each process and server.

    Args:
        pulsar: the broker, which many runs share; an address if nothing disturbs it.
        folder: for ledger, data and logs; the ledger stays.
        plan: what it is to be.
    """

    def __init__(self, pulsar: PulsarServer | PulsarAddress, folder: Path, plan: Plan) -> None:
        self.pulsar, self.plan = pulsar, plan
        self.kind, self.setup = plan.kind, plan.kind.setup
        self.size = plan.kind.size if plan.size is None else plan.size
        self.lanes = self.setup.lanes
        #: The deadline of each message, in seconds.
        self.timeout = TIMEOUT + (self.size if self.setup.outlasts else 0)
        #: How often it has struck.
        self.struck = 0
        self.draw = random.Random(f"{plan.kind.name} {plan.seed}")
        self.workers: list[Worker] = []
        self.callers: list[Caller] = []
        self.ledger_folder = folder / "ledger"
        self.ledger_folder.mkdir(parents=True)
        self.logs = folder / "logs"
        self.logs.mkdir()
        self._data = folder / "data"
        self._open = ExitStack()
        self._tail = Tail(self.ledger_folder)
        self._ledger = self._open.enter_context(Ledger(self.ledger_folder, "runner"))
        self._allowance = Allowance(self.ledger_folder)

    # -- the run --------------------------------------------------------------------------------

    def run(self) -> Result:
        """Call, strike, mend, wait for all outcomes, and look.

        Raises:
            AssertionError: the run itself stands still, which is no verdict.
        """
        began = time.monotonic()
        with self._open:
            self._start()
            self._strike_all()
            self._mend()
            self._await_callers()
            self._note_outcomes()
            self._note_callbacks()
            # A topic that takes no producer keeps the service busy while they try.
            self._kill_all()
            self._note_topic()
        sets = check(read_ledger(self.ledger_folder))
        result = Result(
            self.plan,
            sets,
            tuple(sets.broken(promise_of(self.plan, sets))),
            self.ledger_folder,
            time.monotonic() - began,
            self.logs,
        )
        shutil.rmtree(self._data, ignore_errors=True)
        if result.good:
            shutil.rmtree(self.logs, ignore_errors=True)
            return replace(result, logs=None)
        return result

    # -- servers and processes ------------------------------------------------------------------

    def _start(self) -> None:
        enter = self._open.enter_context
        self.outside = enter(RedisServer(self._data / "outside"))
        config = {"appendfsync": "everysec", **self.setup.redis}
        self.redis = RedisServer(
            self._data / "redis", appendonly=self.setup.appendonly, config=config
        )
        if self.setup.disk is not None:
            self._mount(self.redis.data_dir, self.setup.disk)
        self._open.callback(self.redis.kill)
        self.redis.start()
        url, connection = self._connection()
        self.link = enter(ToxicProxy(url.port or 0))
        self.store_link = enter(ToxicProxy(self.redis.port))
        self.store_url = f"redis://127.0.0.1:{self.store_link.port}/0"
        conf = {
            "stargate_url": f"{url.scheme}://127.0.0.1:{self.link.port}",
            **connection,
            "stargate_redis_url": self.store_url,
            "result_backend": self.store_url,
            "stargate_lease": LEASE,
            "stargate_lanes": self.lanes,
            "stargate_delivery": self.plan.delivery,
            "stargate_ping_interval": IDLE_SESSION / 3,
            # A broker that has just started is slow.
            "stargate_ping_timeout": 10.0,
            "result_expires": 3600,
            # Celery itself loses tasks that a killed worker had taken.
            "task_routes": {"acceptance.record": {"queue": "callbacks"}},
            **self.setup.conf,
        }
        self.rig = enter(Rig(self.pulsar.url, self.pulsar.admin, self.outside.url, self.logs, conf))
        self.store = redis.Redis.from_url(self.redis.url, socket_timeout=5.0)
        self._open.callback(self.store.close)
        self.topic = self.rig.topic(self.kind.name)
        self.rig.admin.create_topic(self.topic)
        # What nobody has subscribed to, a restarted broker forgets.
        self.rig.admin.create_subscription(self.topic, "keep")
        self._acked, self._failed = self.rig.key(), self.rig.key()
        self.clock = Clock(self._data / "clock")
        args = ("--without-stargate", "-Q", "callbacks")
        recorder = self.rig.worker(pool="solo", args=args)
        self._open.callback(recorder.kill)
        self._open.callback(self._kill_all)
        count = self.setup.workers
        with ThreadPoolExecutor(count + 1) as starting:
            started = starting.submit(recorder.start)
            self.workers = list(starting.map(self.new_worker, self._installations(count)))
            started.result()
        self._make_callers()

    def _connection(self) -> tuple[SplitResult, dict[str, Any]]:
        """Where the broker is, and the settings that a connection needs beside that."""
        if not isinstance(self.pulsar, PulsarServer) or self.pulsar.tls is None:
            return urlsplit(self.pulsar.url), {}
        tls = self.pulsar.tls
        return urlsplit(self.pulsar.url), {
            "stargate_tls_ca": str(tls.ca),
            "stargate_tls_certificate": str(tls.client_certificate),
            "stargate_tls_key": str(tls.client_key),
        }

    def _installations(self, count: int) -> list[Installation]:
        old = self.setup.old_workers
        return [last_release().installation if n < old else HERE for n in range(count)]

    def _make_callers(self) -> None:
        each = self.plan.messages // CALLERS
        for number in range(CALLERS):
            plan = CallerPlan(
                name=f"c{number}",
                ledger=str(self.ledger_folder),
                topic=self.topic,
                lanes=self.lanes,
                mine=tuple(range(number, self.lanes, CALLERS)),
                first=0,
                last=each,
                callback_every=_CALLBACK_EVERY if self.plan.messages < _LONG else _SELDOM,
                acked=self._acked,
                failed=self._failed,
                timeout=self.timeout,
                wait_every=_WAIT_EVERY,
                wait_timeout=WAIT_TIMEOUT,
                sizes=self.setup.sizes,
            )
            env = {CONF: json.dumps(self.rig.conf), LOG_URL: self.outside.url}
            old = number < self.setup.old_callers
            installation = last_release().installation if old else HERE
            self.callers.append(Caller(plan, env, self.logs, installation))

    def _kill_all(self) -> None:
        for caller in self.callers:
            caller.process.kill()
        for worker in self.workers:
            worker.kill()

    def new_worker(self, installation: Installation = HERE) -> Worker:
        """A worker that owns lanes, which is ready."""
        env = dict(self.setup.env)
        if self.setup.clock:
            env[CLOCK_JUMPS] = str(self._data / "clock")
        made = self.rig.worker(
            pool=self.setup.pool,
            env=env,
            args=self.setup.worker_args,
            module="tests.faults.app",
            installation=installation,
        )
        return made.start()

    def replace_worker(self, old: Worker, installation: Installation | None = None) -> None:
        """Kill what is left of a worker, and put a new one in its place.

        Args:
            old: the worker.
            installation: where the new one takes the package from; as the old one by default.
        """
        old.kill()
        made = self.new_worker(installation or old.installation)
        self.workers[self.workers.index(old)] = made

    def owner(self) -> Worker:
        """A worker that owns a lane in which messages are in flight; else any."""
        pids = {worker.pid: worker for worker in self.workers if worker.alive}
        in_flight = [sent for _, sent in self.each_lane()]
        owners = self._owners()
        for lane in self.draw.sample(range(self.lanes), self.lanes):
            for pid, worker in pids.items():
                if f"-{pid}-" in owners[lane] and in_flight[lane]:
                    return worker
        return self.draw.choice(self.workers)

    def owned_by(self, pid: int) -> set[int]:
        """The lanes whose lease a process holds."""
        return {lane for lane, owner in enumerate(self._owners()) if f"-{pid}-" in owner}

    def _owners(self) -> list[str]:
        held: Any = self.store.mget([self._key(lane, "lease") for lane in range(self.lanes)])
        return [each.decode() if each else "" for each in held]

    @property
    def own_pulsar(self) -> PulsarServer:
        """The broker, where a fault may disturb it."""
        assert isinstance(self.pulsar, PulsarServer), "this broker is not the run's own"
        return self.pulsar

    def _mount(self, folder: Path, size: str) -> None:
        """Put a disk of its own under a folder."""
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        subprocess.run(command, check=True, timeout=10)
        self._open.callback(subprocess.run, ["umount", str(folder)], check=False, timeout=10)

    def children(self, worker: Worker) -> list[int]:
        """The process ids of the children of its pool."""
        path = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        return [int(each) for each in path.read_text().split()]

    # -- what is going on -----------------------------------------------------------------------

    def _key(self, lane: int, part: str) -> str:
        return Lane(self.topic, lane).key(self.rig.name, part)

    def each_lane(self) -> list[tuple[int, int]]:
        """How many messages each lane holds, and how many of them may have been sent."""
        with self.store.pipeline(transaction=True) as pipeline:
            for lane in range(self.lanes):
                pipeline.hmget(self._key(lane, "meta"), "sent", "last")
                pipeline.xlen(self._key(lane, "log"))
            found = pipeline.execute()
        return [
            (int(backlog), max(0, int(sent or 0) - int(last or 0) + int(backlog)))
            for (sent, last), backlog in zip(found[::2], found[1::2], strict=True)
        ]

    def waiting(self) -> tuple[int, int]:
        """How many messages the lanes hold, and how many of them may have been sent."""
        lanes = self.each_lane()
        return sum(each[0] for each in lanes), sum(each[1] for each in lanes)

    def newer_records(self) -> int:
        """How many records there are that the last release cannot read."""
        count = 0
        for lane in range(self.lanes):
            records: Any = self.store.hvals(self._key(lane, "contexts"))
            count += sum(not each.startswith(b"1 ") for each in records)
        return count

    def keys(self) -> int:
        """How many keys of the package the lanes' Redis has."""
        return sum(1 for _ in self.store.scan_iter(match=f"{self.rig.name}*", count=1000))

    def calls(self) -> int:
        """How many calls have returned."""
        return self._tail.accepted()

    def note(self, event: str, **what: Any) -> None:
        """Write into the runner's file of the ledger."""
        self._ledger.note(event, **what)

    def bound(self, name: str, figure: float, bound: float) -> None:
        """Note a figure that a promise bounds."""
        self._ledger.note("bound", name=name, figure=round(figure, 3), bound=bound)

    def _calling(self) -> bool:
        return any(caller.process.alive for caller in self.callers)

    # -- faults ---------------------------------------------------------------------------------

    def _marks(self) -> list[int]:
        """By how many calls each fault strikes: spread over the run, and a little at random."""
        strikes, messages = self.plan.strike_count, self.plan.messages
        step = messages / max(strikes, 1)
        return [
            round((number + self.draw.uniform(*self.setup.at)) * step) for number in range(strikes)
        ]

    def _strike_all(self) -> None:
        for caller in self.callers:
            caller.start()
        # With connections that are open; their handshakes must not be kept back.
        self.allow(10 * self.lanes if self.lanes < 100 else 2 * self.lanes)
        self._until(lambda: not self.waiting()[0], "the lanes")
        self.link.latency = _LATENCY
        wanted = min(
            self.plan.in_flight, self.plan.messages // (3 * max(self.plan.strike_count, 1))
        )
        for mark in self._marks():
            # What is called by now meets no fault, or the last one.
            self.allow(mark - 2 * wanted)
            self._strike(mark, wanted)
        self.allow(self.plan.messages, wait=False)

    def _strike(self, mark: int, wanted: int) -> None:
        """Strike when so many messages are in flight: their receipts are kept back until then."""
        self.link.hold(answers_only=True)
        self.allow(mark, wait=not self.setup.while_called)

        grown = 0, time.monotonic()

        def in_flight() -> bool:
            nonlocal grown
            sent = self.waiting()[1]
            if sent > grown[0]:
                grown = sent, time.monotonic()
            # A lane that moved a moment ago cannot connect while answers are kept back.
            still = time.monotonic() > grown[1] + _STILL
            return sent >= wanted or still or not self._calling()

        eventually(in_flight, 10.0, every=0.03)
        self._ledger.note("strike", kind=self.kind.name, in_flight=self.waiting()[1])
        with self.kind.strike(self, self.draw):
            self.link.release()
            # Calls are made meanwhile.
            self.allow(mark + wanted // 2, wait=False)
            time.sleep(self.kind.lasts)
        self.struck += 1
        self._ledger.note("healed")

    def allow(self, count: int, *, wait: bool = True) -> None:
        """Let the callers make so many calls together, and wait until they returned."""
        self._allowance.count = max(-(-count // CALLERS), self._allowance.count)
        if wait:
            self._until(
                lambda: self._returned() >= count - CALLERS or not self._calling(), "the calls"
            )

    def _returned(self) -> int:
        """How many calls are over: of each caller that was killed one did not return."""
        return self._tail.accepted() + sum(each.plan.incarnation for each in self.callers)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        bound = _PATIENCE + self.plan.messages / _SLOWEST
        assert eventually(condition, bound, every=0.03), f"{what} stand still"

    def _mend(self) -> None:
        for proxy in (self.link, self.store_link):
            proxy.heal()
        for worker in list(self.workers):
            if not worker.alive:
                self.replace_worker(worker)

    def _await_callers(self) -> None:
        self._until(lambda: not self._calling(), "the calls")
        for caller in self.callers:
            process = caller.process
            code = process._child.returncode if process._child else None  # noqa: SLF001
            assert code in (0, None), f"a caller failed: {process.log_tail()}"

    # -- the ledger's end -----------------------------------------------------------------------

    def _note_outcomes(self) -> None:
        """Wait for the outcome of each accepted call, up to its deadline and the grace."""
        backend: Any = self.rig.app.backend
        events = read_ledger(self.ledger_folder)
        last = {each["id"]: each["at"] for each in events if each["event"] == "accepted"}
        left, end = list(last), max(last.values(), default=0.0) + self.timeout + GRACE
        while left:
            missing = []
            for part in _parts(left, 500):
                keys = [backend.get_key_for_task(each) for each in part]
                try:
                    rows: Any = self.store.mget(keys)
                except RedisError:
                    rows = [None] * len(part)
                for id_, row in zip(part, rows, strict=True):
                    if row is None:
                        missing.append(id_)
                    else:
                        self._ledger.note("outcome", id=id_, **_outcome(backend, row))
            left = missing
            if left and time.time() > end:
                return
            time.sleep(0.2 if left else 0)

    def _note_callbacks(self) -> None:
        """Wait until each context that asked for a callback has one, and note all there are."""
        events = list(read_ledger(self.ledger_folder))
        told = {each["id"] for each in events if each["event"] == "outcome"}
        wanted = {
            each["id"]
            for each in events
            if each["event"] == "attempt" and each["callback"] and each["id"] in told
        }
        eventually(lambda: wanted <= {each["id"] for each in self._callbacks()}, 45.0, every=0.2)
        for each in self._callbacks():
            self._ledger.note("callback", **each)

    def _callbacks(self) -> list[dict[str, Any]]:
        found = []
        for which, key in (("on_ack", self._acked), ("on_error", self._failed)):
            for entry in self.rig.recorded(key, 0):
                context = entry["argument"]["context"]
                found.append({"id": context, "which": which, "task": entry["id"]})
        return found

    def _note_topic(self) -> None:
        count, token = self.rig.stored(self.topic), self._token()
        # Without TLS, whose certificates a fault may have changed.
        url = f"ws://{urlsplit(self.pulsar.http_url).netloc}"
        with Reader(url, self.topic, token=token) as reader:
            for message in reader.take(count):
                self._ledger.note("found", id=message["payload"].decode().strip()[:_ID])

    def _token(self) -> str | None:
        if isinstance(self.pulsar, PulsarServer):
            return self.pulsar.token("admin")
        return None


def _parts(items: list[str], size: int) -> Iterator[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _outcome(backend: Any, row: bytes) -> dict[str, Any]:
    meta = backend.meta_from_decoded(backend.decode_result(row))
    done = datetime.fromisoformat(meta["date_done"])
    at = (done if done.tzinfo else done.replace(tzinfo=UTC)).timestamp()
    result = meta["result"]
    if meta["status"] == "SUCCESS":
        return {"status": result["status"], "at": at}
    return {"status": getattr(result, "status", "refused"), "at": at, "code": str(result)[:200]}
