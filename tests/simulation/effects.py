"""What stands where Celery's effects do: it notes what would have been told, and may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any

from celery_stargate.effects.run import callback_id
from celery_stargate.lanes.record import Settled, encode_outcome
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import Decision, FollowUp, Remaining, ResultRow
from celery_stargate.model.outcome import Outcome, Receipt
from tests.simulation.ledger import Ledger, Told, name_in
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.redis_server import World

__all__ = ["EffectsThread", "SimulatedEffects"]


class SimulatedEffects:
    """Notes each context's outcome and callback; a crash or an error may come in between."""

    def __init__(self, world: World, ledger: Ledger, process: Process) -> None:
        self._world = world
        self._ledger = ledger
        self._process = process

    def at_once(self, given: Iterable[tuple[Entry, Outcome]]) -> list[Decision]:
        """As Celery's backend would store it; the world tells what is stored."""
        found: list[Decision] = []
        for entry, outcome in given:
            how: Decision = Remaining.FULL
            if isinstance(outcome, Receipt) and entry.follow_up is FollowUp.NOTHING:
                how = Remaining.NOTHING
            elif isinstance(outcome, Receipt) and entry.follow_up is FollowUp.RESULT:
                value = encode_outcome(outcome).decode()
                how = ResultRow(f"result:{name_in(entry.frame)}", value, 0)
            found.append(how)
        return found

    def run(self, settled: Iterable[Settled]) -> list[str]:
        done = []
        for each in settled:
            if self._world.over or not self._process.alive:
                break
            context, name = each.record.context, each.record.incarnation
            if self._world.faults.pick("effects"):
                continue
            option = "on_error" if each.failed else "on_ack"
            told = Told(
                self._world.loop.now,
                self._process.name,
                callback_id(context, name, option),
                each.outcomes,
            )
            self._ledger.notify(name, told)
            self._world.note(f"{self._process.name}: {option} of {name}")
            done.append(context)
            self._world.strike(self._process, "effects")
        return done


class EffectsThread(Executor):
    """One thread: each piece of work takes its time, one after another.

    Arguments:
        took: draws how long a piece of work takes, in seconds.
    """

    def __init__(self, took: Callable[[], float]) -> None:
        self._took = took
        self._busy_until = 0.0

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

        self._busy_until = max(self._busy_until, loop.now) + self._took()
        loop.call_at(self._busy_until, run)
        return future
