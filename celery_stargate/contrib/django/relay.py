"""The relay: hands over the rows that the commit's own hand-over missed, in order per key.

Rules for editors: no database transaction is open while Redis is asked. A row that is handed over
twice is the same context twice, so a relay may die between any two statements. Rows are read by
their state, never by "id above the last": a row that becomes visible late is not skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import connections
from django.db.models import Exists, OuterRef, Q
from django.db.utils import Error as DatabaseError
from django.utils import timezone
from kombu.exceptions import OperationalError

from celery_stargate.contrib.django import dead_letters, lanes
from celery_stargate.contrib.django.closing import close_row, close_signature
from celery_stargate.contrib.django.contexts import by_topic
from celery_stargate.contrib.django.leases import Leases
from celery_stargate.contrib.django.pending import PendingRow, read_pending
from celery_stargate.contrib.django.rows import mark_recorded, outbox_rows, relax, storable
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.contrib.django.states import FAILED, State
from celery_stargate.contrib.django.sweep import Sweep
from celery_stargate.contrib.django.wake import Poll, Wake, make_wake
from celery_stargate.errors import InvalidMessage, StargateError
from celery_stargate.support.log import logger_of
from celery_stargate.support.stop_event import StopEvent

__all__ = ["Relay", "make_relay", "run_burst"]

logger = logger_of(__name__)

#: After a failure of the database or Redis the relay waits, at most this many seconds.
_MOST_WAIT = 10.0
#: A key that failed in an unexpected way is tried again after this, doubled each time, in seconds.
_RETRY, _MOST_RETRY = 0.5, 60.0


#: So often in a row a batch is read again at once, because the leases ended before it was put.
_MOST_OUTRUN = 20


@dataclass(slots=True)
class _HeldBack:
    """What the relay does not read for a while: topics that are full, keys and rows that failed."""

    monotonic: Callable[[], float]
    topics: dict[str, float] = field(default_factory=dict)
    keys: dict[tuple[str, str], float] = field(default_factory=dict)
    rows: dict[int, float] = field(default_factory=dict)

    def hold_topic(self, topic: str, seconds: float) -> None:
        self.topics[topic] = self.monotonic() + seconds

    def hold(self, row: PendingRow, seconds: float) -> None:
        until = self.monotonic() + seconds
        if row.key is None:
            self.rows[row.pk] = until
        else:
            self.keys[row.topic, row.key] = until

    def without(self, rows: Any) -> Any:
        now = self.monotonic()
        self.topics = {each: until for each, until in self.topics.items() if until > now}
        self.keys = {each: until for each, until in self.keys.items() if until > now}
        self.rows = {each: until for each, until in self.rows.items() if until > now}
        if self.topics:
            rows = rows.exclude(topic__in=list(self.topics))
        if self.rows:
            rows = rows.exclude(pk__in=list(self.rows))
        by_topic: dict[str, list[str]] = {}
        for topic, key in self.keys:
            by_topic.setdefault(topic, []).append(key)
        # Not a condition for each key: SQLite bounds the depth of all together.
        for topic, keys in by_topic.items():
            rows = rows.exclude(topic=topic, key__in=keys)
        return rows


class Relay:
    """One relay of one database. It runs in one thread.

    Arguments:
        using: the database.
        stop: set to end it after the present batch.
        settings: of the outbox; ``batch_size`` may differ from Django's settings.
        wake: what it waits for; by default a poll.
        monotonic: the clock of its waits and leases.
    """

    def __init__(
        self,
        using: str,
        stop: StopEvent,
        settings: OutboxSettings,
        *,
        wake: Wake | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.using = using
        self.settings = settings
        self.leases = Leases(using, settings.lease, monotonic=monotonic)
        self._stop = stop
        self._wake = wake or Poll(stop)
        self._held_back = _HeldBack(monotonic)
        self._sweep = Sweep(using, self.leases, settings, monotonic=monotonic)
        self._stargate = lanes.current_stargate()
        #: How often in a row the leases ended before a batch was put.
        self._outrun = 0
        #: Whether the last pass read and handed over all that there was.
        self._caught_up = False

    def run(self, *, burst: bool = False, on_pass: Callable[[], None] = lambda: None) -> int:
        """Hand over rows until it is stopped, or with ``burst`` until none is left for it.

        Arguments:
            on_pass: called after each pass, also after one that found the database or Redis away:
                a relay that waits for them works, and a new one could do no more.

        Returns:
            How many rows were handed over.

        Raises:
            ConfigurationError: there is no service URL or no Redis to hand over to.
            django.db.DatabaseError, StoreUnavailable, kombu.exceptions.OperationalError: with
                ``burst`` only; else they are logged, and it tries again.
        """
        if not (burst and lanes.is_eager(self._stargate)):
            self._stargate.settings.require_service()
        total, wait = 0, 0.5
        try:
            while not self._stop.is_set():
                try:
                    done = self.one_pass()
                # StoreUnavailable is an OperationalError, and so is a broker that is away.
                except (DatabaseError, OperationalError) as error:
                    if burst:
                        raise
                    logger.warning("the outbox relay tries again in %.1f s: %s", wait, error)
                    connections[self.using].close()
                    on_pass()
                    self._stop.wait(wait)
                    wait = min(2 * wait, _MOST_WAIT)
                    continue
                total, wait = total + done, 0.5
                on_pass()
                if done and (burst or not (self._caught_up and self._wake.tells)):
                    continue
                if 0 < self._outrun < _MOST_OUTRUN:
                    # There are rows: read them again under leases that are renewed.
                    continue
                if burst:
                    while self.leases.held and self._sweep.step(self._stargate):
                        self.leases.keep()
                    break
                self._wake.wait(self.settings.poll_interval)
        finally:
            self._end()
        return total

    def one_pass(self) -> int:
        """Keep the leases, hand over one batch, and look for rows that Redis lost.

        Returns:
            How many rows left the state pending.

        Raises:
            django.db.DatabaseError, StoreUnavailable: the rows that are left wait.
        """
        self.leases.keep()
        if not self.leases.held:
            return 0
        rows = self.read()
        done = self.hand_over(rows) if rows else 0
        self._caught_up = len(rows) < self.settings.batch_size and done == len(rows)
        # A page at a time: rows that are pending come first.
        self._sweep.step(self._stargate)
        return done

    def read(self) -> Sequence[PendingRow]:
        """Return the next pending rows of this relay's shards, in their order.

        Raises:
            django.db.DatabaseError: the database did not answer.
        """
        rows = outbox_rows(self.using).filter(state=State.PENDING, shard__in=list(self.leases.held))
        if self.settings.block_key_on_failure:
            failed = outbox_rows(self.using).filter(
                topic=OuterRef("topic"),
                key=OuterRef("key"),
                state__in=FAILED,
                pk__lt=OuterRef("pk"),
            )
            rows = rows.filter(Q(key__isnull=True) | ~Exists(failed))
        rows = self._held_back.without(rows)
        return read_pending(rows, self.settings.batch_size)

    def hand_over(self, rows: Sequence[PendingRow]) -> int:
        """Put rows into their lanes and note it; set aside what cannot be published.

        Returns:
            How many left the state pending.

        Raises:
            django.db.DatabaseError, StoreUnavailable: some may be in their lanes without a note;
                they are put again, under the same context.
        """
        entries, aside = self._prepare(rows)
        # A row that is sent again is no dead letter any more: nobody is to replay it beside this.
        again = [(row.topic, row.uuid, row.attempt - 1) for row in rows if row.attempt > 1]
        if again and not lanes.is_eager(self._stargate):
            dead_letters.forget(self._stargate, by_topic(again))
        self._outrun = 0 if self.leases.valid else self._outrun + 1
        if self._outrun:
            # Paused, or the database was slow: another relay may own the shards.
            return 0
        recorded = self.put(entries)
        for topic in recorded.full_topics:
            self._held_back.hold_topic(topic, self.settings.poll_interval)
        keys = {row.context: row.pk for row in rows}
        return aside + self.mark(
            {lane: [keys[each] for each in some] for lane, some in recorded.lanes.items()}
        )

    def put(self, entries: Sequence[lanes.Entry]) -> lanes.Recorded:
        """Put entries into their lanes.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return lanes.record(
            self._stargate,
            entries,
            close_signature(self.using, self.settings.close_queue_of(self.using)),
            remember=self.settings.remember,
        )

    def mark(self, ids: dict[str, Any]) -> int:
        """Note which rows are in which lane, if the shards are still this relay's.

        Raises:
            django.db.DatabaseError: the database did not answer.
        """
        with self.leases.fence() as shards:
            relax(self.using)
            rows = outbox_rows(self.using).filter(shard__in=shards)
            return mark_recorded(rows, ids, timezone.now())

    def _prepare(self, rows: Sequence[PendingRow]) -> tuple[list[lanes.Entry], int]:
        """Return what may go, in order, and how many rows were set aside for good."""
        entries: list[lanes.Entry] = []
        waiting: set[tuple[str, str]] = set()
        aside = 0
        for row in rows:
            if (row.topic, row.key) in waiting:
                continue
            try:
                entry = lanes.prepare(
                    self._stargate,
                    row.to_message(),
                    row.context,
                    row.topic,
                    row.delivery_timeout,
                )
            except Exception as error:  # noqa: BLE001  # one bad row must not stop the others
                gone = self._fail(row, error)
                aside += gone
                # A row that waits holds back its key; one that is set aside, by the setting.
                if row.key is not None and (not gone or self.settings.block_key_on_failure):
                    waiting.add((row.topic, row.key))
            else:
                entries.append(entry)
        return entries, aside

    def _fail(self, row: PendingRow, error: Exception) -> int:
        """Set a row aside, or let it wait; return 1 or 0."""
        tries = row.tries + 1
        # Not its repr, which for some errors holds what they could not read: a payload.
        kind = "" if isinstance(error, StargateError) else f"{type(error).__name__}: "
        reason = f"{kind}{error}"
        code = ""
        if isinstance(error, InvalidMessage):
            code = "invalid"
        elif tries >= self.settings.max_tries:
            code, reason = "poison", f"after {tries} tries: {reason}"
        if code:
            try:
                failure = lanes.refusal(row.context, row.topic, code, reason)
                closed = close_row(self.using, failure)
            except OperationalError as away:
                reason = f"{reason}; its callback was not published: {away}"
            else:
                logger.error(
                    "outbox row is set aside: %s", reason, context=row.context, topic=row.topic
                )
                return int(closed)
        logger.warning("outbox row waits: %s", reason, context=row.context, topic=row.topic)
        outbox_rows(self.using).filter(pk=row.pk, state=State.PENDING, attempt=row.attempt).update(
            tries=tries, reason=storable(reason)
        )
        self._held_back.hold(row, min(_RETRY * 2**tries, _MOST_RETRY))
        return 0

    def _end(self) -> None:
        self._wake.close()
        try:
            self.leases.release()
        except DatabaseError as error:
            logger.warning("the outbox relay's leases end by themselves: %s", error)


def run_burst(using: str, batch_size: int | None = None) -> int:
    """Hand over all that waits in one database, and return how many rows.

    Raises:
        ConfigurationError, django.db.DatabaseError, StoreUnavailable: as :meth:`Relay.run`.
    """
    settings = OutboxSettings.read()
    if batch_size is not None:
        settings = replace(settings, batch_size=batch_size)
    return Relay(using, StopEvent(), settings).run(burst=True)


def make_relay(using: str, stop: StopEvent, settings: OutboxSettings) -> Relay:
    """Return a relay that PostgreSQL's NOTIFY wakes, or that polls."""
    return Relay(using, stop, settings, wake=make_wake(using, settings.listen_using, stop))
