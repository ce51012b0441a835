"""Look for rows whose outcome does not come: Redis lost them, or the closing task was lost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from celery_stargate.support.log import logger_of

__all__ = ["Sweep"]

logger = logger_of(__name__)

_PAGE = 1000


@dataclass(slots=True)
class _Round:
    """One look through all rows, page by page."""

    began: datetime
    #: The shards at its beginning, with their tokens: what was lost meanwhile is not verified.
    tokens: dict[int, int]
    verified: dict[int, datetime | None]
    after: int = 0

    def still(self, held: dict[int, int]) -> list[int]:
        """Return the shards that were held without a break."""
        return [number for number, token in self.tokens.items() if held.get(number) == token]


class Sweep:
    """Asks Redis, now and then, what became of rows that are in a lane for long.

    ========= ============================================================================
    pending   it waits for Pulsar, or its effects are under way: nothing to do
    ended     its outcome was told, and the row is not closed: the task that closes it
              waits in a queue, or was lost. Three quarters of ``remember`` after its end, the
              row is *unknown*
    forgotten the same, by the time since Redis last knew it: its lane had more ended contexts
              than Redis keeps, so it is probably one of them
    absent    Redis knew it less than a quarter of ``remember`` ago, so Redis has lost it:
              the row is *pending* again, and goes to Pulsar under the same context.
              Where nobody looked for longer, nobody can tell: the row is *unknown*
    ========= ============================================================================

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
        self._due: float | None = None
        self._round: _Round | None = None

    def step(self, stargate: Stargate) -> bool:
        """Look at the next page of rows, if a round is due; a round ends with the last page.

        Returns:
            Whether there is more to look at now.

        Raises:
            django.db.DatabaseError, StoreUnavailable: the page is looked at again.
            kombu.exceptions.OperationalError: as :func:`close_row`.
        """
        if lanes.is_eager(stargate):
            # No Redis takes part, so none loses anything.
            return False
        if self._round is None:
            if not self._is_due():
                return False
            verified = dict(self._shards.values_list("number", "verified_at"))
            self._round = _Round(timezone.now(), dict(self._leases.held), verified)
        current = self._round
        shards = current.still(self._leases.held)
        page = self._page(current, shards)
        places = [(row.lane, row.context) for row in page]
        remember = self._settings.remember
        found = lanes.find_contexts(stargate, places, remember=remember) if places else []
        for row, each in zip(page, found, strict=True):
            if each.where != "pending":
                self._judge(row, each, current.verified.get(row.shard))
        if len(page) == _PAGE:
            current.after = page[-1].pk
            return True
        self._shards.filter(number__in=shards, owner=self._leases.name).update(
            verified_at=current.began
        )
        self._round, self._due = None, self._monotonic() + self._settings.check_after
        return False

    def _is_due(self) -> bool:
        if self._due is None:
            # The last round may have been another process's.
            oldest = None
            for moment in self._shards.filter(number__in=list(self._leases.held)).values_list(
                "verified_at", flat=True
            ):
                if moment is None:
                    return True
                oldest = moment if oldest is None else min(oldest, moment)
            age = (timezone.now() - oldest).total_seconds() if oldest else math.inf
            self._due = self._monotonic() + self._settings.check_after - age
        return self._monotonic() >= self._due

    @property
    def _shards(self) -> Any:
        return apps.get_model(APP_LABEL, "OutboxShard").objects.using(self._using)

    def _page(self, current: _Round, shards: list[int]) -> Sequence[Any]:
        return list(
            outbox_rows(self._using)
            .filter(
                state=State.RECORDED,
                recorded_at__lt=current.began - timedelta(seconds=self._settings.check_after),
                shard__in=shards,
                pk__gt=current.after,
            )
            .only("uuid", "attempt", "shard", "topic", "lane", "recorded_at", "state")
            .order_by("pk")[:_PAGE]
        )

    def _judge(self, row: Any, found: lanes.Found, verified_at: datetime | None) -> None:
        """Settle what became of a row that its lane does not hold any more."""
        quarter = self._settings.remember / 4
        known = max(row.recorded_at, verified_at or row.recorded_at)
        unseen_for = (timezone.now() - known).total_seconds()
        if found.where == "ended":
            if found.ended_for > 3 * quarter:
                self._give_up(row, "its outcome was told, and the task that closes it did not run")
        elif found.where == "forgotten":
            if unseen_for > 3 * quarter:
                self._give_up(row, "Redis has forgotten it among too many ended messages")
        elif unseen_for < quarter:
            logger.warning(
                "Redis lost an outbox row; it is sent again", context=row.context, topic=row.topic
            )
            with self._leases.fence() as shards:
                outbox_rows(self._using).filter(
                    pk=row.pk, attempt=row.attempt, state=State.RECORDED, shard__in=shards
                ).update(state=State.PENDING, reason="Redis lost it; it is sent again")
        else:
            self._give_up(row, "Redis does not know it, and nobody looked for too long")

    def _give_up(self, row: Any, reason: str) -> None:
        logger.error("outbox row is unknown: %s", reason, context=row.context, topic=row.topic)
        with self._leases.fence() as shards:
            ours = row.shard in shards
        if ours:
            failure = lanes.refusal(row.context, row.topic, "no-outcome", reason, unknown=True)
            close_row(self._using, failure)
