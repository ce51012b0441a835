"""After the commit: rows go into their lanes at once; what that misses, the relay takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from celery_stargate.contrib.django import lanes
from celery_stargate.contrib.django.closing import close_signature
from celery_stargate.contrib.django.rows import mark_recorded, outbox_rows
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.contrib.django.states import FAILED, State
from celery_stargate.contrib.django.wake import notify
from celery_stargate.errors import StargateError
from celery_stargate.support.log import logger_of

__all__ = ["after_commit"]

logger = logger_of(__name__)

Written = tuple[Any, lanes.Entry]

#: A transaction with more rows leaves them to the relay: its caller has waited long enough.
_MOST = 1000
#: For how many seconds after Redis was away only the relay tries.
_PAUSE = 5.0


@dataclass(slots=True)
class _Breaker:
    """Spares callers the wait for a Redis that is away."""

    until: float = 0.0

    def open(self) -> bool:
        return time.monotonic() < self.until

    def trip(self) -> None:
        self.until = time.monotonic() + _PAUSE


_breaker = _Breaker()


@dataclass(slots=True)
class _Handover:
    """What one transaction, or one savepoint of it, hands over when it has committed."""

    using: str
    settings: OutboxSettings
    #: In eager mode each error is a callback's own, and is raised: no Redis takes part.
    eager: bool
    written: list[Written] = field(default_factory=list)
    #: What the same transaction and savepoints wrote next, with a hook of its own.
    following: _Handover | None = None
    begun: bool = False

    def send(self) -> None:
        """Hand over all that this hook and those behind it hold, or leave it to the relay."""
        if self.begun:
            return
        self._gather()
        try:
            if not self._send():
                notify(self.using)
        except DatabaseError as error:
            if self.eager:
                raise
            # The data is committed and so is the row: this must not fail the caller.
            logger.warning("the relay will take %d outbox rows: %s", len(self.written), error)

    def _gather(self) -> None:
        """Take what the hooks behind this one hold; they have nothing to do any more."""
        self.begun = True
        each = self.following
        while each is not None and not each.begun:
            self.written += each.written
            each.begun = True
            each = each.following

    def _send(self) -> bool:
        """Hand over all rows; return whether nothing is left to the relay."""
        stargate = lanes.current_stargate()
        if not self.eager and (
            not self.settings.send_on_commit or len(self.written) > _MOST or _breaker.open()
        ):
            return False
        self._forget_rolled_back()
        if not self.written:
            return True
        free = self._in_turn()
        try:
            recorded = lanes.record(
                stargate,
                [entry for _, entry in free],
                close_signature(self.using, self.settings.close_queue_of(self.using)),
                remember=self.settings.remember,
            )
        except StargateError as error:
            if self.eager:
                raise
            _breaker.trip()
            logger.warning("the relay will take %d outbox rows: %s", len(free), error)
            return False
        keys = {entry.context: row.pk for row, entry in free}
        ids = {
            lane: [keys[context] for context in contexts]
            for lane, contexts in recorded.lanes.items()
        }
        mark_recorded(outbox_rows(self.using), ids, timezone.now())
        return len(free) == len(self.written) and not recorded.full_topics

    def _forget_rolled_back(self) -> None:
        """Forget what is not in the table: it must not be sent. The others get their ids.

        Django drops the hooks of a savepoint that ``atomic`` rolled back, and not of one that
        ``transaction.savepoint_rollback`` did.
        """
        rows = outbox_rows(self.using).filter(uuid__in=[row.uuid for row, _ in self.written])
        keys = dict(rows.values_list("uuid", "pk"))
        self.written = [each for each in self.written if each[0].uuid in keys]
        for row, _ in self.written:
            # MySQL tells no ids after a bulk insert.
            row.pk = keys[row.uuid]

    def _in_turn(self) -> Sequence[Written]:
        """Return the rows whose key has no earlier row that waits: the relay keeps their order."""
        first: dict[tuple[str, str], int] = {}
        for row, _ in self.written:
            if row.key is not None:
                first.setdefault((row.topic, row.key), row.pk)
        if not first:
            return self.written
        states = [State.PENDING]
        if self.settings.block_key_on_failure:
            states += FAILED
        rows = outbox_rows(self.using)
        # Very many may wait: for each key the database looks for one, in an index.
        earlier = rows.filter(
            key=OuterRef("key"), topic=OuterRef("topic"), state__in=states, pk__lt=OuterRef("pk")
        )
        found = rows.filter(Exists(earlier), pk__in=first.values()).values_list("topic", "key")
        waiting = set(found)
        return [each for each in self.written if (each[0].topic, each[0].key) not in waiting]


def after_commit(using: str, written: Sequence[Written], settings: OutboxSettings) -> None:
    """Hand rows over after the commit: those of one transaction together, savepoints honoured.

    Each call has a hook of its own, and the first hook that runs does the work of those behind it.
    A test that captures hooks gets those of its own rows, whatever was written before.
    """
    connection = connections[using]
    eager = lanes.is_eager(lanes.current_stargate())
    handover = _Handover(using, settings, eager, list(written))
    hooks = connection.run_on_commit
    if connection.in_atomic_block and hooks:
        sids, hook, *_ = hooks[-1]
        earlier = getattr(hook, "__self__", None)
        # The same transaction and the same savepoints: Django would drop both or neither.
        if isinstance(earlier, _Handover) and sids == set(connection.savepoint_ids):
            earlier.following = handover
    # Robust: the data is committed, and whatever goes wrong here the relay mends. Django logs the
    # name of what failed; a method has one.
    transaction.on_commit(handover.send, using=using, robust=not eager)
