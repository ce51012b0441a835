"""Look for rows whose outcome does not come: Redis lost them, or the closing task was lost."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.utils import timezone

from celery_stargate.app import Stargate
from celery_stargate.contrib.django import lanes
from celery_stargate.contrib.django.apps import APP_LABEL
from celery_stargate.contrib.django.closing import close_row
from celery_stargate.contrib.django.leases import Leases
from celery_stargate.contrib.django.rows import outbox_rows
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.contrib.django.states import State

__all__ = ["Sweep"]

logger = logging.getLogger("celery_stargate")

_PAGE = 1000


class Sweep:
    """Asks Redis, now and then, what became of rows that are in a lane for long.

    ========  ============================================================================
    pending   it waits for Pulsar, or its effects are under way: nothing to do
    ended     its outcome was told, and the row is not closed: the task that closes it
              waits in a queue, or was lost. Three quarters of ``remember`` after its end, the
              row is *unknown*
    absent    Redis knew it less than a quarter of ``remember`` ago, so Redis has lost it:
              the row is *pending* again, and goes to Pulsar under the same context.
              Where nobody looked for longer, nobody can tell: the row is *unknown*
    ========  ============================================================================

    Arguments:
        using: the database.
        leases: which shards are looked through, and whether they are still held.
        settings: of the outbox.
        monotonic: the clock by which it is due.
    """

    def __init__(
        self,
        using: str,
        leases: Leases,
        settings: OutboxSettings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._using = using
        self._leases = leases
        self._settings = settings
        self._monotonic = monotonic
        self._due = -math.inf

    def run_if_due(self, stargate: Stargate) -> None:
        """Look through the rows of the held shards, if the last time is long enough ago.

        Raises:
            django.db.DatabaseError, StoreUnavailable: it goes on at the next time.
        """
        if self._monotonic() < self._due:
            return
        # It may take longer than the leases last; what it then changes is fenced.
        self._due = self._monotonic() + self._settings.check_after
        began = timezone.now()
        verified = dict(self._shards.values_list("number", "verified_at"))
        for page in self._pages(began - timedelta(seconds=self._settings.check_after)):
            places = [(row.lane, row.context) for row in page]
            found = lanes.find_contexts(stargate, places, remember=self._settings.remember)
            for row, each in zip(page, found, strict=True):
                if each.where != "pending":
                    self._judge(row, each, verified.get(row.shard))
            self._leases.keep()
            if not self._leases.held:
                return
        self._shards.filter(number__in=list(self._leases.held), owner=self._leases.name).update(
            verified_at=began
        )

    @property
    def _shards(self) -> Any:
        return apps.get_model(APP_LABEL, "OutboxShard").objects.using(self._using)

    def _pages(self, before: datetime) -> Iterator[Sequence[Any]]:
        after = 0
        while True:
            page = list(
                outbox_rows(self._using)
                .filter(
                    state=State.RECORDED,
                    recorded_at__lt=before,
                    shard__in=list(self._leases.held),
                    pk__gt=after,
                )
                .only("uuid", "attempt", "shard", "topic", "lane", "recorded_at", "state")
                .order_by("pk")[:_PAGE]
            )
            if not page:
                return
            after = page[-1].pk
            yield page

    def _judge(self, row: Any, found: lanes.Found, verified_at: datetime | None) -> None:
        """Settle what became of a row that its lane does not hold any more."""
        quarter = self._settings.remember / 4
        known = max(row.recorded_at, verified_at or row.recorded_at)
        if found.where == "ended":
            if found.ended_for > 3 * quarter:
                self._give_up(row, "its outcome was told, and the task that closes it did not run")
        elif (timezone.now() - known).total_seconds() < quarter:
            logger.warning("Redis lost outbox row %s; it is sent again", row.context)
            with self._leases.fence() as shards:
                outbox_rows(self._using).filter(
                    pk=row.pk, attempt=row.attempt, state=State.RECORDED, shard__in=shards
                ).update(state=State.PENDING, reason="Redis lost it; it is sent again")
        else:
            self._give_up(row, "Redis does not know it, and nobody looked for too long")

    def _give_up(self, row: Any, reason: str) -> None:
        logger.error("outbox row %s is unknown: %s", row.context, reason)
        with self._leases.fence() as shards:
            ours = row.shard in shards
        if ours:
            failure = lanes.refusal(row.context, row.topic, "no-outcome", reason, unknown=True)
            close_row(self._using, failure)
