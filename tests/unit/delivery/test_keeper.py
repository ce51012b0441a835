"""``delivery/keeper.py``: what a look at the lane leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from celery_stargate.delivery import keeper as keeper_module
from celery_stargate.delivery.keeper import Keeper, UnreadBacklog
from celery_stargate.delivery.lease import Lease
from celery_stargate.lanes.lane import CONTEXTS_LANE, Lane
from celery_stargate.lanes.leased import LaneTick
from celery_stargate.lanes.record import Settled
from tests.unit.delivery.rig import IDLE, PartsRig, settled

BUSY = LaneTick(contexts=1, backlog=1, due=0, next_deadline=None)


class Done(Exception):
    """The script of the test is at its end."""


class Script:
    """The lane in Redis, the renewals and the registry: they do as the test says, and note it."""

    def __init__(self, rig: Rig, lane: Lane, ticks: list[LaneTick]) -> None:
        self.lane = lane
        self.done: list[str] = []
        #: Pages of effects that the last owner left.
        self.left: list[list[Settled]] = []
        #: Whether the registry and the lane let it retire.
        self.unused = True
        #: Seconds that pass while a tick is under way, and in the background.
        self.takes, self.idle_for = 0.0, 0.0
        self._rig = rig
        self._ticks = ticks

    # As the lane in Redis.

    async def due(self, offset: int = -1) -> list[Settled]:
        if offset < 0:
            self.done.append("due")
            return [settled(9)]
        return self.left.pop(0) if self.left else []

    async def expire(self) -> list[Settled]:
        self.done.append("expire")
        return [settled(8)]

    async def retire(self, idle: float) -> bool:
        self.done.append("retire")
        return self.unused

    # As the renewals.

    async def tick(self, store: object) -> LaneTick:
        if not self._ticks:
            raise Done
        self.done.append("tick")
        self._rig.clock += self.takes
        return self._ticks.pop(0)

    async def renew_in_background(
        self, store: object, until: float, renewed: Callable[[float], None]
    ) -> None:
        self.done.append("background")
        self._rig.clock = min(self._rig.clock + self.idle_for, until + 0.1)
        renewed(self._rig.clock)


class Rig(PartsRig):
    """A keeper over a script."""

    def __init__(self, *ticks: LaneTick, lane: Lane | None = None) -> None:
        super().__init__(lane=lane)
        self.at_rest = False
        self.script = Script(self, self.store.lane, list(ticks))
        scripted = cast("Any", self.script)
        shared = replace(self.shared, renewals=scripted)
        self.lane = replace(self.lane, shared=shared, store=scripted)
        self.lease = Lease("x", 3.0, lambda: self.clock)
        self.keeper = Keeper(
            self.lane, self.lease, self.in_flight, self.queue, lambda: self.at_rest
        )


def keep(rig: Rig) -> list[str]:
    """Keep the lane to the end of the script; return what was done."""

    async def main() -> None:
        async with asyncio.timeout(5):
            await rig.keeper.run()

    with pytest.raises(Done):
        asyncio.run(main())
    return rig.script.done


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note for how long it would sleep."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(keeper_module, "asyncio", SimpleNamespace(sleep=sleep))
    return slept


def test_effects_that_the_last_owner_left() -> None:
    """Are queued first, page by page."""
    rig = Rig()
    rig.script.left = [[settled(1), settled(2)], [settled(3)]]
    assert keep(rig) == []
    assert len(rig.queue) == 3


@pytest.mark.parametrize(
    ("tick", "done", "queued", "slept"),
    [
        (IDLE, ["tick", "background"], 0, []),
        (BUSY, ["tick"], 0, [1.0]),
        (replace(BUSY, contexts=0), ["tick"], 0, [1.0]),
        (replace(BUSY, due=1), ["tick", "due"], 1, [1.0]),
        (replace(BUSY, next_deadline=0.25), ["tick"], 0, [0.251]),
        (replace(BUSY, next_deadline=-1.0), ["tick", "expire"], 1, []),
        (replace(BUSY, due=1, next_deadline=0.0), ["tick", "due", "expire"], 2, []),
    ],
)
def test_what_a_look_leads_to(
    tick: LaneTick, done: list[str], queued: int, slept: list[float], no_sleep: list[float]
) -> None:
    """Effects that are due, deadlines that passed, and the wait for the next look."""
    rig = Rig(tick)
    assert keep(rig) == done
    assert len(rig.queue) == queued
    assert no_sleep == slept


def test_a_renewal_counts_from_before_it() -> None:
    """However long it took."""
    rig = Rig(BUSY)
    rig.script.takes = 2.0
    keep(rig)
    assert rig.lease.may_send()
    rig.clock += 1.0
    assert not rig.lease.may_send()


def test_messages_that_nobody_is_about_to_send() -> None:
    """Three looks in a row must find them, with all read and settled."""
    rig = Rig(*[BUSY] * 3)
    rig.at_rest = True
    with pytest.raises(UnreadBacklog):
        asyncio.run(rig.keeper.run())
    assert rig.script.done == ["tick"] * 3


def test_messages_that_are_about_to_be_sent() -> None:
    """A look between that finds none begins the count again."""
    rig = Rig(BUSY, BUSY, replace(BUSY, backlog=0), BUSY, BUSY)
    rig.at_rest = True
    assert keep(rig) == ["tick"] * 5


def test_an_unused_lane_is_retired() -> None:
    """After more than an hour without a context."""
    rig = Rig(IDLE, IDLE)
    rig.script.idle_for = 1e6
    asyncio.run(rig.keeper.run())
    assert rig.script.done == ["tick", "background", "tick", "retire"]


def test_a_lane_that_is_used_again() -> None:
    """It was announced meanwhile, or holds a tombstone: it stays for as long again."""
    rig = Rig(IDLE, IDLE)
    rig.script.idle_for, rig.script.unused = 1e6, False
    assert keep(rig) == ["tick", "background", "tick", "retire", "background"]


def test_the_lane_without_messages_is_never_retired() -> None:
    """It belongs to no topic that could be unused."""
    rig = Rig(IDLE, IDLE, lane=CONTEXTS_LANE)
    rig.script.idle_for = 1e6
    assert keep(rig) == ["tick", "background"] * 2
