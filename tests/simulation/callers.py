"""Simulated callers: they put as `lanes/caller.py` does, see to deadlines, and acknowledge."""

from __future__ import annotations

import asyncio
import itertools
import math
import zlib
from typing import Any

from msgspec.json import encode
from redis.exceptions import RedisError

from celery_stargate.lanes.dead_letters import DeadLetterWriter
from celery_stargate.lanes.lane import CONTEXTS, Lane
from celery_stargate.lanes.outbox import GRACE_MS
from celery_stargate.lanes.puts import ANSWER_MS
from celery_stargate.lanes.record import (
    Record,
    decode_triples,
    encode_outcome,
    encode_record,
)
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.lanes.scripts import lane_keys, lane_script, registry_script
from celery_stargate.model.entry import label_of
from celery_stargate.model.follow_up import FollowUp
from celery_stargate.model.outcome import Receipt
from celery_stargate.model.topic import Topic
from tests.simulation.effects import BROKEN, SimulatedEffects
from tests.simulation.ledger import Context, Ledger
from tests.simulation.loop import Process
from tests.simulation.plan import Plan
from tests.simulation.redis_server import RedisServer, SimulatedRedis, World

__all__ = ["Caller", "topic_name"]

#: How long a put of a context that may come again is known after its end, in ms.
_TOMBSTONE_MS = 600_000


def topic_name(number: int, *, persistent: bool = True) -> str:
    """The full name of a topic."""
    return f"{'' if persistent else 'non-'}persistent://public/default/t{number}"


class Caller:
    """A process that makes its share of a plan's calls, one after another."""

    def __init__(
        self, world: World, plan: Plan, ledger: Ledger, server: RedisServer, process: Process
    ) -> None:
        self._world = world
        self._plan = plan
        self._ledger = ledger
        self._process = process
        self._random = world.faults.random
        self._redis = SimulatedRedis(world, server, process, retries=2)
        self._effects = SimulatedEffects(world, ledger, process)
        self._registry = RegistryKeys(plan.settings.prefix)
        self._announced: dict[Lane, float] = {}
        self._tokens = itertools.count(1)

    async def run(self, count: int) -> None:
        """Make the calls."""
        pause = self._plan.work_for / count
        for number in range(count):
            wait = pause * self._random.random() * 2
            if self._plan.retire_after < self._plan.work_for:
                # All at once, and then for long nothing.
                wait = self._plan.work_for / 3 if number % (count // 3 + 1) == 0 else wait / 20
            await asyncio.sleep(wait)
            await self._call(f"{self._process.name}.{number}")

    async def _call(self, name: str) -> None:
        drawn = self._random.random
        timeout = 3600.0
        if drawn() < 0.3:
            timeout = self._random.choice((0.3, 2.0, 10.0))
        if drawn() < 0.1:
            # The one who is to acknowledge may die, and then the deadline has to come.
            await self._await_somebody(name, min(timeout, 20.0))
            return
        count = self._random.choice((2, 3)) if drawn() < 0.15 else 1
        topic = Topic.parse(
            topic_name(self._random.randrange(self._plan.topics), persistent=self._plan.persistent)
        )
        options = self._plan.settings.options
        lane = Lane(str(topic), self._random.randrange(options.lane_count))
        place = topic if options.partitions is None else topic.partition(lane.index)
        labels = [label_of(name, i if count > 1 else -1) for i in range(count)]
        reused = self._plan.reuses and count == 1 and drawn() < 0.5
        used = f"{self._process.name}.again{lane.index}" if reused else name
        context = Context(name, used, lane.name, str(place), labels, timeout)
        self._ledger.attempted(context)
        again = not reused and drawn() < 0.5
        tombstone = _TOMBSTONE_MS if again or self._plan.effectively_once else 0
        # For some only failures matter, for some only the result.
        chance = zlib.crc32(name.encode()) % 4
        quiet = count == 1 and not again and chance in (0, 2)
        mark = FollowUp.RESULT if count == 1 and chance == 1 else FollowUp.MORE
        # Some have effects of several stages, some of these a callback that cannot be published.
        context.staged = not quiet and chance == 3
        context.broken = context.staged and zlib.crc32(name.encode()) % 3 == 0
        while True:
            try:
                if quiet:
                    known = await self._put_quiet(lane, context, tombstone)
                else:
                    known = await self._put(lane, context, tombstone, mark)
            except RedisError:
                if not again:
                    return
                await asyncio.sleep(0.5)
            else:
                break
        if known and reused:
            # An earlier call of this context is pending, or is remembered: nothing was recorded.
            return
        context.accepted = self._world.loop.now
        if drawn() < 0.1:
            self._process.start(self._see_to_deadline(lane, context))

    async def _put(
        self, lane: Lane, context: Context, tombstone: int, mark: FollowUp = FollowUp.MORE
    ) -> bool:
        """Put a context; return whether it was known."""
        await self._announce(lane)
        staged: dict[str, Any] = {}
        if context.staged:
            on_ack = BROKEN if context.broken else "paid"
            staged = {"inbox": "i/1", "task": "t", "on_ack": on_ack, "on_error": "failed"}
        is_list = len(context.labels) > 1
        record = Record(context.context, is_list=is_list, incarnation=context.name, **staged)
        arguments: list[Any] = [
            f"{self._process.name}:{next(self._tokens)}",
            context.context,
            encode_record(record),
            round(context.timeout * 1000),
            0,
            tombstone,
            ANSWER_MS,
            mark.value,
        ]
        for place, label in enumerate(context.labels):
            echoed = label_of(context.context, place if len(context.labels) > 1 else -1)
            arguments += ("", _frame(label, echoed))
        what, _ = await self._lane_call("put", lane, arguments)
        return bool(what == b"known")

    async def _put_quiet(self, lane: Lane, context: Context, tombstone: int) -> bool:
        """Put as `put_many` does what nothing follows."""
        await self._announce(lane)
        arguments: list[Any] = [
            f"{self._process.name}:{next(self._tokens)}",
            round(context.timeout * 1000),
            *(0, tombstone, ANSWER_MS, context.context),
            encode_record(Record(context.context, incarnation=context.name)),
            *("q", _frame(context.name, context.context)),
        ]
        what, _ = await self._lane_call("put_many", lane, arguments)
        return bool(what == b"known")

    async def _announce(self, lane: Lane) -> None:
        # As `lanes/caller.py`, and `RETIRE_AFTER` beside it: far more often than lanes retire.
        known = self._announced.get(lane, -math.inf)
        if self._world.loop.now - known >= self._plan.retire_after / 60 and lane.has_messages:
            script = self._redis.register_script(registry_script("announce"))
            keys = [self._registry.key("lanes"), self._registry.key("events")]
            arguments: list[Any] = [lane.name]
            if self._plan.options_left:
                keys = [lane.key(self._registry.prefix, "meta"), *keys]
                arguments.append(self._plan.options_left)
            await script(keys=keys, args=arguments)
            self._announced[lane] = self._world.loop.now

    async def _lane_call(
        self, name: str, lane: Lane, arguments: list[Any], caller: str | None = None
    ) -> Any:
        listed = name in {"put", "put_many"}
        prefix, caller = self._registry.prefix, caller or self._process.name
        keys = lane_keys(prefix, lane, caller, listed=listed)
        if listed:
            arguments = [
                *arguments,
                self._plan.options_left,
                lane.name if lane.has_messages else "",
            ]
        script = self._redis.register_script(lane_script(name))
        return await script(keys=keys, args=arguments)

    async def _await_somebody(self, name: str, timeout: float) -> None:
        """Record a context without a message, which another process acknowledges."""
        lane = Lane(CONTEXTS)
        context = Context(name, name, lane.name, None, [], timeout)
        self._ledger.attempted(context)
        try:
            await self._put(lane, context, _TOMBSTONE_MS)
        except RedisError:
            return
        context.accepted = self._world.loop.now
        self._process.start(self._acknowledge(lane, context))

    async def _acknowledge(self, lane: Lane, context: Context) -> None:
        await asyncio.sleep(3.0 * self._random.random())
        outcome = encode_outcome(Receipt(context=context.name))
        # One call at a time has a caller's name, and another one may be under way here.
        caller = f"{self._process.name}/{context.name}"
        arguments = ["", f"{caller}:1", GRACE_MS, context.context, "", -1, outcome, "ok"]
        while True:
            try:
                answer = (await self._lane_call("settle", lane, arguments, caller))[1]
                break
            except RedisError:
                await asyncio.sleep(0.5)
        if answer[0] == b"due":
            await self._do_effects(lane, [context.context.encode(), answer[1], answer[2]])

    async def _see_to_deadline(self, lane: Lane, context: Context) -> None:
        """Settle it when it is overdue: there may be no owner that does it."""
        if context.timeout > 60.0:
            return
        await asyncio.sleep(context.timeout)
        try:
            rules = self._plan.settings.dead_letter_rules
            dead = DeadLetterWriter(self._plan.settings.prefix, lane, self._process.name, rules)
            arguments = [GRACE_MS, 100, context.context, dead.deadline_cause, *dead.bounds]
            script = self._redis.register_script(lane_script("expire"))
            found = await script(keys=dead.keys, args=arguments)
            await self._do_effects(lane, found)
        except RedisError:
            self._world.note(f"{self._process.name}: {context.name} is left to the owner")

    async def _do_effects(self, lane: Lane, found: list[bytes]) -> None:
        settled = list(decode_triples(found, lane))
        done = self._effects.run(settled)
        if done:
            identities: list[Any] = [part for each in done for part in each.identity]
            try:
                await self._lane_call("finish", lane, identities)
            except RedisError:
                self._world.note(f"{self._process.name}: {identities} are left to the owner")


def _frame(label: str, context: str) -> bytes:
    """A frame as a lane stores it: some as bytes, which Redis holds for large payloads."""
    payload, rest = label.encode(), encode({"context": context})
    if len(label) % 2:
        return b"%d\n%b%b" % (len(payload), payload, rest)
    return encode({"payload": payload, "context": context})
