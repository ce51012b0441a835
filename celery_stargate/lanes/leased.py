"""A leased lane: what the process that holds the lease does in Redis, from its event loop."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from celery_stargate.lanes.completion import completion_arguments, completion_keys
from celery_stargate.lanes.dead_letters import NO_DEAD_LETTERS, DeadLetterWriter
from celery_stargate.lanes.lane import PAUSED_BY, Lane
from celery_stargate.lanes.outbox import GRACE_MS
from celery_stargate.lanes.progress import PROGRESS_FIELDS, Progress, read_progress
from celery_stargate.lanes.record import (
    Record,
    Settled,
    decode_record,
    decode_triples,
    encode_outcome,
    first_number,
    report_undecodable,
)
from celery_stargate.lanes.scripts import LANE_PARTS, Argument, AsyncScripts, lane_keys
from celery_stargate.lanes.wire import (
    CompleteReply,
    Fenced,
    LaneTick,
    SettleReply,
    StoredEntry,
    StoreRolledBack,
    Unreadable,
    check_lease,
    last_number,
    read_complete,
    read_entries,
    read_marked,
    read_settle,
    read_stored,
    read_tick,
)
from celery_stargate.model.dead_letters import DeadLetterRules
from celery_stargate.model.entry import Entry
from celery_stargate.model.follow_up import ResultRow
from celery_stargate.model.outcome import Failure, Outcome, Receipt
from celery_stargate.support.decoding import UNDECODABLE
from celery_stargate.support.processes import has_ended

__all__ = ["Fenced", "LaneTick", "LeasedLane", "StoreRolledBack", "Unreadable"]

#: How many contexts one call expires, or finds due, at most.
_CONTEXTS = 100
#: How many entries that may not be sent one read passes over at most, so that they are set aside.
_UNREADABLE = 1000


class LeasedLane:
    """A lane in Redis, for the process ``owner``.

    Every method raises what redis-py raises when Redis is unavailable, :class:`Fenced` when another
    process has the lease, and :class:`StoreRolledBack` when Redis came back with an older state.

    It has more methods than a class should: each script of the lane has one, and no other place
    knows its arguments and its reply.

    Arguments:
        redis: a client of :meth:`~celery_stargate.lanes.connections.Connections.asyncio`.
        prefix: what all keys begin with.
        lane: which lane.
        owner: the name of this process.
        lease: seconds for which the lease holds without a renewal.
        rules: which messages become dead letters; by default none do.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str,
        lane: Lane,
        owner: str,
        lease: float,
        rules: DeadLetterRules = NO_DEAD_LETTERS,
    ) -> None:
        self.lane = lane
        #: The number of the lane's bucket; 0 where there are no buckets.
        self.bucket = lane.bucket(prefix)
        self._redis = redis
        self._scripts = AsyncScripts(redis)
        self._owner = owner
        self._prefix = prefix
        self._ttl = max(1, round(lease * 1000))
        self._keys = lane_keys(prefix, lane, "owner")
        self._dead = DeadLetterWriter(prefix, lane, "owner", rules)
        self._contexts_key = self._keys[LANE_PARTS.index("contexts")]
        self._meta_key = self._keys[LANE_PARTS.index("meta")]
        self._lease_key = self._keys[LANE_PARTS.index("lease")]
        self._lease = ""
        #: The highest number that was marked as perhaps sent, by us or before; Redis must know it.
        self._known = 0
        #: Field ``m`` of that message's entry, if its put marked it; Redis must know that, too.
        self._marked = ""
        #: The number of the message that is waited for; 0: none. :meth:`complete` says so in Redis,
        #: so that its put marks that message as one that may be sent.
        self.expected = 0
        #: The number of which Redis was told last, if its message was not taken yet; else 0.
        self._told = 0
        #: Held while :meth:`complete` runs.
        self._completing = asyncio.Lock()
        #: The generation that this hold works under; Redis must know it. Empty: not read yet.
        self._generation = ""
        #: Number and reason (:class:`Unreadable`) of what the last read left out.
        self.unreadable: list[tuple[int, str]] = []

    @property
    def log_key(self) -> str:
        """The key of the lane's log."""
        return self._keys[LANE_PARTS.index("log")]

    @property
    def fencing_token(self) -> int:
        """The number of this hold of the lease: how often the lane has had an owner."""
        return int(self._lease.rpartition(":")[2] or 0)

    async def acquire(self) -> bool:
        """Take the lease; return whether we hold it.

        The lease of a process of this machine that has ended is not waited for.
        """
        arguments = self._owner, self._ttl, uuid.uuid4().hex
        reply = await self._run("lease", *arguments)
        if reply[0] == 0:
            held = bytes(reply[1]).decode(errors="replace")
            if not has_ended(held.rpartition(":")[0]):
                return False
            await self._run("release", held)
            reply = await self._run("lease", *arguments)
            if reply[0] == 0:
                return False
        self._lease = f"{self._owner}:{reply[1]}"
        self._generation = bytes(reply[2] or b"").decode()
        return True

    async def release(self) -> None:
        """Give the lease back."""
        await self._run("release", self._lease)

    async def pause(self, why: str, seconds: float) -> None:
        """Stop the lane, and lose the lease: nobody sends until an operator resumes it.

        Arguments:
            why: in place of the owner's name.
            seconds: until the pause ends by itself.
        """
        owner = f"{PAUSED_BY}{why}"
        word, *_ = await self._run("pause", self._lease, owner, round(seconds * 1000))
        check_lease(word)

    async def retire(self, idle: float) -> bool:
        """Forget the lane if it is empty; return whether it is gone, and the lease with it.

        Arguments:
            idle: how many seconds ago the last announcement must be.
        """
        # With the keys of dead letters even if none are kept now: there may be some from before.
        keys = lane_keys(self._prefix, self.lane, "owner", dead_letters=True, listed=True)
        given = (self._lease, int(idle), self.lane.name, "0 0 0")
        return bool(await self._scripts.run("retire", keys, given))

    async def options(self) -> dict[str, Any]:
        """Return the producer options that a caller left for workers without this topic's settings.

        They are empty if there are none, or if they cannot be read, which is logged.
        """
        stored: Any = await self._redis.hget(self._meta_key, "options")
        if stored is None:
            return {}
        try:
            return msgspec.json.decode(stored, type=dict[str, Any])
        except UNDECODABLE as error:
            report_undecodable(self.lane, ValueError(str(error)))
            return {}

    async def tick(self) -> LaneTick:
        """Renew the lease, and return what the lane holds."""
        _, arguments = self.tick_request()
        return self.read_tick(await self._run("tick", *arguments))

    def tick_request(self) -> tuple[Sequence[str], Sequence[str | int]]:
        """Return keys and arguments of the ``tick`` script, to run it for many lanes at once."""
        return self._keys, (self._lease, self._ttl, self._noted)

    def read_tick(self, reply: Any) -> LaneTick:
        """Read the reply of the ``tick`` script.

        Arguments:
            reply: or the error that Redis answered with, which is raised.
        """
        if isinstance(reply, Exception):
            raise reply
        return read_tick(reply)

    async def read(
        self, after: int, count: int, size: int, *, mark: bool, gapless: bool = False
    ) -> list[Entry]:
        """Read messages after a number, in order; only those that may be sent.

        Entries that may not be sent are left out, and in :attr:`unreadable` afterwards. None is
        read behind one that waits for a newer process, because a lane's order is kept.

        Arguments:
            after: the number.
            count: how many messages at most.
            size: how many bytes of frames at most; the first message may be larger.
            mark: note in Redis that these messages may be sent from now on.
            gapless: stop before a number that is not the one before plus 1; ``after`` counts, too.
        """
        self.unreadable = []
        while True:
            word, *reply = await self._run(
                *("read", self._lease, after, count, size, int(mark), int(gapless)),
                *(self._noted, self._generation),
            )
            check_lease(word)
            marked, fields = reply[0], reply[1:]
            if not fields:
                return []
            entries, unreadable = read_entries(fields)
            self.unreadable += unreadable
            if mark and entries:
                self._was_read(entries[-1].number, marked.decode())
            waits = bool(unreadable) and unreadable[-1][1] == Unreadable.NEWER
            if entries or waits or gapless or len(self.unreadable) >= _UNREADABLE:
                return entries
            after = last_number(fields)

    async def look(self, after: int, count: int, size: int) -> list[Entry]:
        """Read messages without a script; none of them may be sent before it is noted.

        Arguments:
            after, count, size: as in :meth:`read`. The messages that do not fit are fetched, too.

        Returns:
            None where one of them has to be read by :meth:`read`.
        """
        stored: Any = await self._redis.xrange(self.log_key, f"({after}-0", "+", count=count)
        return read_stored(stored, size)

    async def note(self, entries: Sequence[Entry]) -> list[Entry]:
        """Note that messages of :meth:`look` may be sent from now on, and return them.

        Where anything is not as usual, none is noted, and none returned: :meth:`read` reads them.
        """
        given = [part for each in entries for part in (each.number, each.context, each.place)]
        word, *marked = await self._run("note", self._lease, self._noted, self._generation, *given)
        check_lease(word)
        if not marked:
            return []
        self._was_read(entries[-1].number, marked[0].decode())
        return list(entries)

    def _was_read(self, last: int, marked: str) -> None:
        """Note that a read marked all messages up to a number, or the last one's put did before."""
        if last > self._known:
            self._known, self._marked = last, marked
        if last >= self._told:
            self._told = 0

    def take(self, stored: StoredEntry) -> Entry | None:
        """Take the message that is waited for, if its put marked it: then it may be sent.

        Arguments:
            stored: the entry of the log.

        Returns:
            None for one that has to be read.
        """
        marked = read_marked(stored, self._lease)
        if marked is None or marked.entry.number != self._told:
            return None
        self._known, self._marked, self._told = marked.entry.number, marked.by, 0
        return marked.entry

    async def expect_nothing(self) -> None:
        """Let no put mark a message any more; :attr:`expected` is 0 by now."""
        async with self._completing:
            # One that is on its way may still tell Redis of a message.
            pass
        if self._told:
            await self._redis.hdel(self._meta_key, "expected")
            self._told = 0

    async def set_aside(self, unreadable: Iterable[tuple[int, str]]) -> int:
        """Move entries that may not be sent from the log into the quarantine.

        Arguments:
            unreadable: number and reason of each, from :attr:`unreadable`; one that waits for a
                newer process stays.

        Returns:
            How many were moved.
        """
        given = [part for each in unreadable for part in each]
        word, *rest = await self._run("set_aside", self._lease, *given)
        check_lease(word)
        return int(rest[0])

    async def progress(self) -> Progress:
        """Return how far the lane's messages have come."""
        values: Any = await self._redis.hmget(self._meta_key, *PROGRESS_FIELDS)
        found, by = read_progress(values, self.fencing_token)
        another = found.sent == self._known and self._marked != by
        if found.sent < self._known or another or self._generation not in ("", found.generation):
            held: Any = await self._redis.get(self._lease_key)
            # The next owner has a generation of its own, and sends.
            raise StoreRolledBack if held == self._lease.encode() else Fenced
        self._known, self._marked, self._generation = found.sent, by, found.generation
        return found

    async def begin_generation(self, ended: str) -> str:
        """Give the lane a new generation; return the one it has now.

        Arguments:
            ended: the generation to replace; a lane that has another one keeps it. Empty for any.
        """
        word, *rest = await self._run("generation", self._lease, ended, uuid.uuid4().hex)
        check_lease(word)
        self._generation = bytes(rest[0]).decode()
        return self._generation

    async def disown_generation(self) -> None:
        """Send nothing new under the present generation: its numbers may have been used before."""
        word, *_ = await self._run("generation", self._lease, "", "")
        check_lease(word)

    async def records(self, entries: Sequence[Entry]) -> dict[int, Record]:
        """Return the records of messages' contexts, by the messages' numbers.

        One that is gone, is another call's by now, or cannot be read is left out.
        """
        contexts = [entry.context for entry in entries]
        stored: Any = await self._redis.hmget(self._contexts_key, *contexts)
        found: dict[int, Record] = {}
        for entry, each in zip(entries, stored, strict=True):
            try:
                if each is not None and first_number(each) == entry.first:
                    found[entry.number] = decode_record(each)
            except ValueError as error:
                report_undecodable(self.lane, error)
        return found

    async def settle(self, outcomes: Sequence[tuple[Entry, Outcome]], token: str) -> SettleReply:
        """Give messages their outcomes.

        Arguments:
            outcomes: each message with its outcome. The context of a message is known by its name
                and number: another one of the same name gets nothing.
            token: of this call; a repeat with the same token gets the same answer.
        """
        arguments: list[Argument] = []
        for entry, outcome in outcomes:
            kind = "ok"
            if isinstance(outcome, Failure):
                kind = f"error\n{self._dead.cause_of(outcome)}"
            arguments += (entry.context, entry.first, entry.place, encode_outcome(outcome), kind)
        reply = await self._run_dead("settle", self._lease, token, GRACE_MS, *arguments)
        return read_settle(reply, self.lane)

    async def complete(
        self,
        fire_and_forget: Sequence[Entry],
        results: Sequence[tuple[Entry, ResultRow]],
        token: str,
        waited_for: Sequence[tuple[Entry, Receipt]] = (),
    ) -> CompleteReply:
        """Settle contexts by a receipt, do what follows it in the same step, and forget them.

        Arguments:
            fire_and_forget: the messages of those without a row.
            results: the messages of those with a row, which this step stores and publishes.
            token: as in :meth:`settle`.
            waited_for: the messages of those that a call waits for, which this step tells.
        """
        given = fire_and_forget, results, waited_for
        keys = completion_keys(self._prefix, results, waited_for)
        arguments: list[Argument] = [self._lease, token, *completion_arguments(*given)]
        async with self._completing:
            if self.expected:
                arguments += (self._noted, self._generation, self.expected)
                self._told = self.expected
            return read_complete(await self._run("complete", *arguments, keys=keys))

    async def expire(self) -> list[Settled]:
        """Settle up to 100 contexts whose deadline has passed."""
        reply = await self._run_dead("expire", GRACE_MS, _CONTEXTS, "", self._dead.deadline_cause)
        return list(decode_triples(reply, self.lane))

    async def due(self, offset: int = -1) -> list[Settled]:
        """Find up to 100 settled contexts whose effects are not done.

        Arguments:
            offset: -1 for those that are due now; else all of them, from this place on.
        """
        word, *rest = await self._run("due", self._lease, GRACE_MS, _CONTEXTS, offset)
        check_lease(word)
        return list(decode_triples(rest, self.lane))

    async def finish(self, done: Iterable[Settled]) -> None:
        """Forget contexts whose effects are done."""
        await self._run("finish", *(part for each in done for part in each.identity))

    async def give_up(self, ended: Iterable[tuple[Settled, str]]) -> None:
        """Forget contexts whose effects are over without success.

        Arguments:
            ended: each with the cause of its dead letter; empty for one that Celery tries again.
        """
        arguments = [part for each, cause in ended for part in (*each.identity, cause)]
        await self._run_dead("give_up", *arguments)

    async def confirm(self, stored: Iterable[tuple[str, int]]) -> None:
        """Forget the dead letters of messages whose receipt came after their outcome.

        Arguments:
            stored: label and number of each.
        """
        arguments = [part for each in stored for part in each]
        if self._dead.bounds:
            await self._run_dead("confirm", *arguments)

    @property
    def _noted(self) -> str:
        """The highest number that Redis must know to be marked, and by which put, if it was one."""
        return f"{self._known} {self._marked}"

    async def _run_dead(self, name: str, *arguments: Argument) -> Any:
        """Run a script that gets the keys of dead letters, where they are kept."""
        return await self._scripts.run(name, self._dead.keys, [*arguments, *self._dead.bounds])

    async def _run(self, name: str, *arguments: Argument, keys: Sequence[str] = ()) -> Any:
        return await self._scripts.run(name, [*self._keys, *keys], arguments)
