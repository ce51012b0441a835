"""What the owner of a lane does with it in Redis, from the event loop."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio import Redis

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.outbox import GRACE_MS
from celery_stargate.lanes.record import (
    Settled,
    decode_settled,
    decode_triples,
    encode_outcome,
    report_undecodable,
)
from celery_stargate.lanes.scripts import LANE_PARTS, lane_script
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import PRODUCE, FollowUp, ResultRow
from celery_stargate.model.frame import label_in
from celery_stargate.model.outcome import Failure, Outcome
from celery_stargate.support.log import logger

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Fenced", "LaneTick", "LeasedLane", "Progress", "StoreRolledBack"]


_SEQUELS = {each.value.encode(): each for each in FollowUp}


class Fenced(Exception):
    """The lease went to somebody else: settle nothing, drop what is held, join again."""


class StoreRolledBack(Exception):
    """Redis knows less than it did: it came back with an older state, as after a failover.

    New messages are given numbers that were used. Pulsar must not take them for those.
    """


@dataclass(frozen=True, slots=True)
class LaneTick:
    """What a lane holds, at a renewal of its lease."""

    contexts: int
    backlog: int
    due: int
    #: Seconds to the next deadline; None where there is none.
    next_deadline: float | None

    @property
    def idle(self) -> bool:
        """Whether it holds nothing at all."""
        return not (self.contexts or self.backlog or self.due) and self.next_deadline is None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a lane's messages have come; all numbers are the lane's."""

    #: The last message that may have been sent.
    sent: int
    #: The last one that may have been sent under the present generation.
    tried: int
    #: What the producer's name is made of, where Pulsar is to know it again.
    generation: str


class LeasedLane:
    """A lane in Redis, for the process ``owner``.

    Every method raises what redis-py raises where Redis is away, :class:`Fenced` where the lease is
    not ours any more, and :class:`StoreRolledBack` where Redis has lost what it knew.

    Arguments:
        lease: seconds for which the lease holds without a renewal.
    """

    def __init__(self, redis: Redis, prefix: str, lane: Lane, owner: str, lease: float) -> None:
        self.lane = lane
        self._redis = redis
        self._prefix = prefix
        self._owner = owner
        self._ttl = max(1, round(lease * 1000))
        self._keys = [lane.key(prefix, part) for part in LANE_PARTS]
        self._keys.append(lane.key(prefix, "answers:owner"))
        self._lease = ""
        # By name: to register a script takes its hash, each time.
        self._scripts: dict[str, Any] = {}
        #: The highest number that was marked as perhaps sent, here or before: Redis knows it.
        self._known = 0
        self._topic = lane.topic if lane.has_messages else None

    @property
    def log_key(self) -> str:
        """The key of the lane's log."""
        return self._keys[0]

    async def acquire(self) -> bool:
        """Take the lease; return whether we hold it."""
        reply = await self._run("lease", self._owner, self._ttl, uuid.uuid4().hex)
        if reply[0] == 0:
            return False
        self._lease = f"{self._owner}:{reply[1]}"
        return True

    async def release(self) -> None:
        """Give the lease back."""
        await self._run("release", self._lease)

    async def retire(self) -> bool:
        """Forget the lane where it is empty; return whether it is gone, and the lease with it."""
        return bool(await self._run("retire", self._lease))

    async def options(self) -> dict[str, Any]:
        """Return the producer options that a caller left for workers who do not know the topic."""
        stored: Any = await self._redis.hget(self._keys[LANE_PARTS.index("meta")], "options")
        if stored is None:
            return {}
        try:
            return msgspec.json.decode(stored, type=dict[str, Any])
        except msgspec.DecodeError as error:
            report_undecodable(self.lane, ValueError(str(error)))
            return {}

    async def tick(self) -> LaneTick:
        """Renew the lease, and look at what the lane holds."""
        _, arguments = self.tick_request()
        return self.read_tick(await self._run("tick", *arguments))

    def tick_request(self) -> tuple[Sequence[str], Sequence[str | int]]:
        """Return the keys and the arguments of a tick's script, for who runs many at once."""
        return self._keys, (self._lease, self._ttl, self._known)

    def read_tick(self, reply: Any) -> LaneTick:
        """Read what a tick's script answered.

        Arguments:
            reply: or what Redis refused it with, which is raised.
        """
        if isinstance(reply, Exception):
            raise reply
        word, *rest = reply
        self._check(word)
        contexts, backlog, due, left = rest
        return LaneTick(contexts, backlog, due, left / 1000 if left >= 0 else None)

    async def read(
        self, after: int, count: int, size: int, *, mark: bool, gapless: bool = False
    ) -> list[Entry]:
        """Read messages after a number, in order.

        Arguments:
            count: how many at most.
            size: how many bytes of frames at most; one message always.
            mark: note that they may be sent from now on.
            gapless: only messages whose numbers follow one another, and ``after``.
        """
        while True:
            word, *rest = await self._run(
                "read", self._lease, after, count, size, int(mark), int(gapless), self._known
            )
            self._check(word)
            if not rest:
                return []
            after = rest[-5]
            if mark:
                self._known = max(self._known, after)
            if entries := list(self._entries(rest)):
                return entries

    def _entries(self, reply: Sequence[Any]) -> Iterator[Entry]:
        for number, label, frame, place, mark in zip(*(reply[i::5] for i in range(5)), strict=True):
            try:
                name = label.decode() if label else label_in(frame)
                task = mark[1:].decode() or PRODUCE
            except ValueError as error:
                logger.error("lane %s: message %d is %s; left alone", self.lane.name, number, error)
            else:
                follow_up = _SEQUELS.get(mark[:1], FollowUp.MORE)
                yield Entry(number, name, frame, place, follow_up, task)

    async def progress(self) -> Progress:
        """Return how far the lane's messages have come."""
        key = self._keys[LANE_PARTS.index("meta")]
        stored: Any = await self._redis.hmget(key, "sent", "tried", "generation")
        sent, tried, generation = stored
        found = Progress(int(sent or 0), int(tried or 0), (generation or b"").decode())
        if found.sent < self._known:
            raise StoreRolledBack
        self._known = found.sent
        return found

    async def begin_generation(self, ended: str) -> str:
        """Give the lane a new generation; return the one it has now.

        Arguments:
            ended: the one that it has; empty for whichever it is. Where it has another, that stays.
        """
        word, *rest = await self._run("generation", self._lease, ended, uuid.uuid4().hex)
        self._check(word)
        return bytes(rest[0]).decode()

    async def settle(
        self, outcomes: Sequence[tuple[str, int, Outcome]], token: str
    ) -> tuple[list[Settled], int, bool]:
        """Give contexts their outcomes.

        Arguments:
            outcomes: context, place in its list (-1 for none) and outcome, of each message.
            token: of this call; a repeat with it gets the same answer.

        Returns:
            What is complete now and waits for its effects; how many outcomes came too late; and
            whether the lease is lost, so that only receipts counted.
        """
        arguments: list[Any] = []
        for context, place, outcome in outcomes:
            kind = "error" if isinstance(outcome, Failure) else "ok"
            arguments += (context, place, encode_outcome(outcome), kind)
        fenced, *answers = await self._run("settle", self._lease, token, GRACE_MS, *arguments)
        settled, late = [], 0
        for word, *rest in answers:
            if word == b"due":
                try:
                    settled.append(decode_settled(rest[0], rest[1], self._topic))
                except ValueError as error:
                    report_undecodable(self.lane, error)
            elif word in (b"late", b"ignored"):
                late += 1
        return settled, late, bool(fenced)

    async def complete(
        self, fire_and_forget: Sequence[str], results: Sequence[tuple[str, ResultRow]], token: str
    ) -> tuple[int, bool]:
        """Settle contexts by a receipt that nothing follows but a result, and forget them.

        Arguments:
            fire_and_forget: those that nothing follows.
            results: those whose result is stored and published in this step.
            token: as in :meth:`settle`.

        Returns:
            How many receipts came too late, and whether the lease is lost.
        """
        contexts = [*fire_and_forget, *(context for context, _ in results)]
        keys = [result.key for _, result in results]
        arguments: list[Any] = [self._lease, token, len(contexts), *contexts]
        for _, result in results:
            arguments += (result.value, result.expires)
        fenced, late = await self._run("complete", *arguments, keys=keys)
        return late, bool(fenced)

    async def expire(self) -> list[Settled]:
        """Settle up to 100 contexts whose deadline has passed."""
        return list(decode_triples(await self._run("expire", GRACE_MS, 100, ""), self.lane))

    async def due(self, offset: int = -1) -> list[Settled]:
        """Find up to 100 settled contexts whose effects nobody has done.

        Arguments:
            offset: -1 for those whose time has come; else a place among all of them.
        """
        word, *rest = await self._run("due", self._lease, GRACE_MS, 100, offset)
        self._check(word)
        return list(decode_triples(rest, self.lane))

    async def finish(self, contexts: Iterable[str]) -> None:
        """Forget contexts whose effects are done."""
        await self._run("finish", *contexts)

    @staticmethod
    def _check(word: int) -> None:
        """Raise what the first word of a script's answer means."""
        if word == 1:
            raise Fenced
        if word == 2:
            raise StoreRolledBack

    async def _run(self, name: str, *arguments: Any, keys: Sequence[str] = ()) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._redis.register_script(lane_script(name))
        return await script(keys=[*self._keys, *keys], args=arguments)
