"""Revocations in Redis: of contexts in their lanes, and of ids and stamps that are in none yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from celery_stargate.lanes.connections import Connections, store_errors
from celery_stargate.lanes.dead_letters import NO_DEAD_LETTERS, DeadLetterWriter
from celery_stargate.lanes.lane import Lane, spread
from celery_stargate.lanes.outbox import GRACE_MS
from celery_stargate.lanes.record import (
    Record,
    Settled,
    decode_record,
    decode_settled,
    encode_outcome,
    first_number,
    report_undecodable,
)
from celery_stargate.lanes.registry import RegistryKeys
from celery_stargate.lanes.scripts import Argument, Callers, Run, Scripts
from celery_stargate.model.dead_letters import DeadLetterRules
from celery_stargate.model.revocation import revoked_failure
from celery_stargate.support.bound import call_bound

__all__ = ["Revocations", "Revoked"]

#: Seconds for which ids and stamps are remembered, and how many of each; Celery's own worker keeps
#: 50,000 ids.
_KEPT, _KEPT_COUNT = 86_400.0, 50_000
#: How many records one step of a scan returns, about.
_SCAN = 500


@dataclass(slots=True)
class Revoked:
    """What a revocation did, over all lanes that were asked."""

    #: What was settled, by lane: the effects are due.
    settled: dict[Lane, list[Settled]] = field(default_factory=dict)
    #: The contexts that were found, and may have been sent, whole or in part.
    sent: set[str] = field(default_factory=set)
    #: The lists whose messages are in other lanes, and how many these are.
    elsewhere: dict[str, int] = field(default_factory=dict)

    @property
    def contexts(self) -> set[str]:
        """The contexts that are settled."""
        return {each.record.context for found in self.settled.values() for each in found}


class Revocations:
    """Revokes contexts in the lanes of one prefix, from any process.

    Each method raises :class:`StoreUnavailable` if Redis did not answer within the bound around the
    call, or within 5 s where there is none.

    Arguments:
        connections: to the Redis that holds the lanes.
        prefix: what all keys begin with.
        rules: which messages become dead letters; by default none do.
        clock: the time, in seconds, until which ids and stamps are remembered.
    """

    def __init__(
        self,
        connections: Connections,
        prefix: str,
        rules: DeadLetterRules = NO_DEAD_LETTERS,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connections = connections
        self._prefix = prefix
        self._rules = rules
        self._clock = clock
        self._scripts = Scripts(connections)
        self._callers = Callers()
        self._ids_keys = [keys.key("revoked") for keys in RegistryKeys.of_all(prefix)]
        self._stamps_key = RegistryKeys(prefix).key("revoked-stamps")

    def revoke(
        self, lanes: Sequence[Lane], contexts: Sequence[str], first: int | None = None
    ) -> Revoked:
        """Fail what was not sent of some contexts, in whichever of the lanes they are.

        Arguments:
            first: the first number of these contexts, so that others of the same name get nothing;
                None for those that are there.
        """
        found = Revoked()
        if not lanes or not contexts:
            return found
        number = "" if first is None else first
        with call_bound(), store_errors(), self._callers.lend() as [caller]:
            token = caller.token()
            runs: list[Run] = []
            for lane in lanes:
                arguments: list[Argument] = [token, GRACE_MS]
                for context in contexts:
                    failure = revoked_failure(context, _topic_of(lane))
                    arguments += (context, number, encode_outcome(failure))
                dead = DeadLetterWriter(self._prefix, lane, caller.name, self._rules)
                if dead.bounds:
                    arguments += (dead.cause_of(revoked_failure("", lane.topic)), *dead.bounds)
                runs.append((dead.keys, arguments))
            replies = self._scripts.run_many("revoke", runs)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        for lane, reply in zip(lanes, replies, strict=True):
            self._read(found, lane, contexts, reply)
        return found

    def pending(self, lane: Lane, containing: bytes) -> Iterator[tuple[Record, int]]:
        """Return the records of a lane's contexts, those only whose text has something in it.

        Each comes with its first number.
        """
        key = lane.key(self._prefix, "contexts")
        cursor: Any = 0
        while True:
            with call_bound(), store_errors():
                step: Any = self._connections.sync().hscan(key, cursor, count=_SCAN)
            cursor, records = step
            for stored in records.values():
                if containing not in stored:
                    continue
                try:
                    yield decode_record(stored), first_number(stored)
                except ValueError as error:
                    report_undecodable(lane, error)
            if not cursor:
                return

    def remember(self, contexts: Iterable[str]) -> None:
        """Remember for a day that ids were revoked: their messages may still come by the broker."""
        buckets: dict[str, list[str]] = {}
        for context in contexts:
            buckets.setdefault(self._ids_key(context), []).append(context)
        for key, own in buckets.items():
            self._remember(key, own)

    def remembers(self, context: str) -> bool:
        """Whether an id was revoked within the last day."""
        with call_bound(), store_errors():
            until: Any = self._connections.sync().zscore(self._ids_key(context), context)
        return until is not None and float(until) > self._clock()

    def remember_stamps(self, stamps: Mapping[str, Iterable[str]]) -> None:
        """Remember for a day that stamps were revoked."""
        members = (_member(header, each) for header, values in stamps.items() for each in values)
        self._remember(self._stamps_key, members)

    def remembers_stamps(self, stamps: Mapping[str, Iterable[str]]) -> bool:
        """Whether any of some stamps was revoked within the last day."""
        members = [_member(header, each) for header, values in stamps.items() for each in values]
        if not members:
            return False
        with call_bound(), store_errors():
            found: Any = self._connections.sync().zmscore(self._stamps_key, members)
        now = self._clock()
        return any(until is not None and float(until) > now for until in found)

    def _ids_key(self, context: str) -> str:
        """Return where an id is remembered."""
        return self._ids_keys[spread(context, len(self._ids_keys))]

    def _remember(self, key: str, members: Iterable[str]) -> None:
        until = self._clock() + _KEPT
        scores = dict.fromkeys(members, until)
        if not scores:
            return
        with (
            call_bound(),
            store_errors(),
            self._connections.sync().pipeline(transaction=False) as pipeline,
        ):
            pipeline.zadd(key, scores)
            pipeline.zremrangebyscore(key, "-inf", self._clock())
            pipeline.zremrangebyrank(key, 0, -_KEPT_COUNT - 1)
            pipeline.expire(key, round(_KEPT))
            pipeline.execute()

    def _read(
        self, found: Revoked, lane: Lane, contexts: Sequence[str], reply: Sequence[Any]
    ) -> None:
        """Add what one lane answered."""
        topic = _topic_of(lane)
        for context, (word, *rest) in zip(contexts, reply, strict=True):
            if word == b"elsewhere":
                found.elsewhere[context] = rest[0]
            elif word in (b"sent", b"part"):
                found.sent.add(context)
            elif word == b"due":
                try:
                    settled = decode_settled(rest[0], rest[1], topic)
                except ValueError as error:
                    report_undecodable(lane, error)
                else:
                    found.settled.setdefault(lane, []).append(settled)


def _topic_of(lane: Lane) -> str | None:
    return lane.topic if lane.has_messages else None


def _member(header: str, value: str) -> str:
    return msgspec.json.encode([header, value]).decode()
