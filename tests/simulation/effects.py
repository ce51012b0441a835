"""What stands where Celery's effects do: it notes what would have been told, and may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from kombu.exceptions import OperationalError

from celery_stargate.effects.attempts import STUCK_AFTER
from celery_stargate.effects.failures import Kind, kind_of
from celery_stargate.effects.jobs import Job, Stage
from celery_stargate.effects.run import callback_id
from celery_stargate.lanes.record import Record, Settled, encode_outcome
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import Decision, FollowUp, Remaining, ResultRow
from celery_stargate.model.outcome import Outcome, Receipt
from tests.simulation.ledger import Ledger, Told, name_in
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.redis_server import World

__all__ = ["BROKEN", "EffectsThread", "SimulatedEffects"]

#: The packed signature of a callback that can never be published.
BROKEN = "broken"


class SimulatedEffects:
    """Notes each context's outcome and callback; a crash or an error may come in between."""

    def __init__(self, world: World, ledger: Ledger, process: Process) -> None:
        self._world = world
        self._ledger = ledger
        self._process = process
        self._threads: dict[Stage, EffectsThread] = {}

    def thread(self, stage: Stage) -> EffectsThread:
        """Make the thread of a stage."""

        def took() -> float:
            hangs = self._world.faults.pick("effects thread")
            return self._world.latency() + (3 * STUCK_AFTER if hangs else 0.0)

        self._threads[stage] = EffectsThread(took)
        return self._threads[stage]

    def hangs_for(self, stage: Stage) -> float:
        """As the real effects; the servers answer in the end."""
        thread = self._threads.get(stage)
        busy = 0.0 if thread is None else thread.busy_for(self._world.loop.now)
        return busy if busy > STUCK_AFTER else 0.0

    #: Somebody is told of successes, as of a worker that logs at INFO.
    tells = True

    def needs_records(self, given: Iterable[tuple[Entry, Outcome]]) -> list[Entry]:
        """Of those whose results are stored in the step that settles."""
        return [
            entry
            for entry, outcome in given
            if isinstance(outcome, Receipt) and entry.follow_up is FollowUp.RESULT
        ]

    def tell(self, finished: Sequence[Settled]) -> None:
        """Tell of successes, which the settling step ended: Redis must know each of them."""
        for each in finished:
            if each.failed:
                self._ledger.wrong.append(f"{each.record.context} is told, and is no success")

    def at_once(
        self, given: Iterable[tuple[Entry, Outcome]], records: Mapping[int, Record]
    ) -> list[Decision]:
        """As Celery's backend would store it; the world tells what is stored."""
        found: list[Decision] = []
        for entry, outcome in given:
            how: Decision = Remaining.FULL
            if isinstance(outcome, Receipt) and entry.follow_up is FollowUp.NOTHING:
                how = Remaining.NOTHING
            elif (
                isinstance(outcome, Receipt)
                and entry.follow_up is FollowUp.RESULT
                and entry.number in records
            ):
                value = encode_outcome(outcome).decode()
                how = ResultRow(f"result:{name_in(entry.frame)}", value, 0)
            found.append(how)
        return found

    def run(self, settled: Iterable[Settled]) -> list[Settled]:
        """Do all stages, as a caller does; return what is done."""
        own = [Job(each) for each in settled]
        jobs = own
        while jobs:
            for job in jobs:
                if job.next is not None:
                    self.perform(job.next, [job])
            jobs = [] if self._gone else [job for job in jobs if job.next is not None]
        return [job.given for job in own if job.done]

    def perform(self, stage: Stage, jobs: Sequence[Job]) -> list[Job]:
        """Do one stage; the outcome is told in the last one that can tell it."""
        for job in jobs:
            if self._gone:
                break
            if stage not in job.remaining:
                continue
            try:
                self._do(stage, job)
            except Exception as error:  # noqa: BLE001  # the package's own table decides
                if kind_of(error) is Kind.PASSING:
                    job.interrupted.add(stage)
                else:
                    job.fail(error)
            else:
                job.finish(stage)
                self._world.strike(self._process, "effects")
        return []

    @property
    def _gone(self) -> bool:
        return self._world.over or not self._process.alive

    def _do(self, stage: Stage, job: Job) -> None:
        if self._world.faults.pick("effects"):
            raise OperationalError("the server is away")
        record = job.settled.record
        if stage is not Stage.CALLBACKS and record.on_error is not None:
            # The callback tells it.
            return
        if job.callback == BROKEN:
            raise TypeError("the callback takes no argument")
        option = "on_error" if job.call.failed else "on_ack"
        told = Told(
            self._world.loop.now,
            self._process.name,
            callback_id(job.context, record.incarnation, option),
            job.call.outcomes,
        )
        self._ledger.notify(record.incarnation, told)
        self._world.note(f"{self._process.name}: {option} of {record.incarnation}")


class EffectsThread(Executor):
    """One thread: each piece of work takes its time, one after another.

    Arguments:
        took: draws how long a piece of work takes, in seconds.
    """

    def __init__(self, took: Callable[[], float]) -> None:
        self._took = took
        self._busy_until = 0.0
        self._began = 0.0

    def busy_for(self, now: float) -> float:
        """Return for how many seconds it has done what it does now."""
        return max(0.0, now - self._began) if now < self._busy_until else 0.0

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: what was begun is done."""

    def begin(self, loop: VirtualLoop, work: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Do it in virtual time, in the process that asks."""
        future: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            try:
                result = work(*args)
            except Exception as error:  # noqa: BLE001
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        if self._busy_until <= loop.now:
            self._began = loop.now
        self._busy_until = max(self._busy_until, loop.now) + self._took()
        loop.call_at(self._busy_until, run)
        return future
