"""What operators do with rows: requeue, replay, discard, clean up, count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.apps import apps
from django.db.models import Count, F, Min
from django.db.models.functions import Now
from django.utils import timezone

from celery_stargate.contrib.django import dead_letters, lanes
from celery_stargate.contrib.django.apps import APP_LABEL
from celery_stargate.contrib.django.contexts import by_topic
from celery_stargate.contrib.django.rows import outbox_rows
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.contrib.django.states import CLOSED, FAILED, OPEN, State
from celery_stargate.contrib.django.wake import notify
from celery_stargate.errors import StargateError
from celery_stargate.support.log import logger_of

__all__ = ["clean_up", "clean_up_inbox", "discard", "outbox_stats", "replay", "requeue"]

logger = logger_of(__name__)

#: Rows of one DELETE, each a transaction of its own.
_DELETE_SIZE = 1000
#: Rows of one SELECT.
_READ_SIZE = 500


def requeue(rows: Any) -> int:
    """Send failed or discarded rows again, each under a new attempt and context.

    Returns:
        How many; rows in other states, or that changed meanwhile, stay as they are.
    """
    return _again(rows, (*FAILED, State.DISCARDED))


def replay(rows: Any) -> int:
    """Send stored rows once more, each under a new attempt and context: Pulsar gets a second copy.

    Returns:
        How many; rows in other states, or that changed meanwhile, stay as they are.
    """
    return _again(rows, (State.STORED,))


def discard(rows: Any) -> int:
    """Give up failed rows: they hold back no key any more, and clean-up deletes them.

    Their dead letters are deleted as well, as far as Redis is there; else they stay until they
    are too old.

    Returns:
        How many; rows in other states stay as they are.
    """
    failed = rows.filter(state__in=FAILED)
    given_up = by_topic(failed.order_by().values_list("topic", "uuid", "attempt"))
    count = int(failed.update(state=State.DISCARDED, closed_at=timezone.now()))
    if count:
        try:
            stargate = lanes.current_stargate()
            if not lanes.is_eager(stargate):
                dead_letters.forget(stargate, given_up)
        except StargateError as error:
            logger.warning("dead letters of %d discarded outbox rows stay: %s", count, error)
    return count


def _again(rows: Any, states: Iterable[State]) -> int:
    changed = 0
    for row in _pages(rows.filter(state__in=list(states)).defer("payload"), _READ_SIZE):
        past = {
            "attempt": row.attempt,
            "state": row.state,
            "code": row.code,
            "reason": row.reason,
            "message_id": row.message_id,
            "closed_at": row.closed_at.isoformat() if row.closed_at else None,
        }
        # One statement moves it on, if nobody did meanwhile: never two attempts from one.
        changed += (
            outbox_rows(rows.db)
            .filter(pk=row.pk, attempt=row.attempt, state=row.state)
            .update(
                state=State.PENDING,
                attempt=F("attempt") + 1,
                tries=0,
                lane="",
                message_id="",
                code="",
                reason="",
                recorded_at=None,
                closed_at=None,
                history=[*(row.history or []), past],
            )
        )
    if changed:
        notify(rows.db)
    return changed


def _pages(rows: Any, size: int) -> Iterator[Any]:
    """Yield rows in the order of their keys, a page at a time.

    Without ``iterator()``: its cursor lives in one connection of PostgreSQL's, and PgBouncer's
    transaction pooling may ask another one for the next rows.
    """
    after = 0
    while page := list(rows.filter(pk__gt=after).order_by("pk")[:size]):
        yield from page
        after = page[-1].pk


def clean_up(
    using: str,
    older_than: timedelta,
    *,
    topic: str | None = None,
    dry_run: bool = False,
) -> int:
    """Delete rows that were stored or discarded some time ago; open and failed rows stay.

    Arguments:
        using: the database.
        older_than: the least time since a row was closed.
        topic: only rows of this topic, by its full name.
        dry_run: count only.

    Returns:
        How many were, or would be, deleted.
    """
    rows = outbox_rows(using).filter(state__in=CLOSED, closed_at__lt=timezone.now() - older_than)
    if topic is not None:
        rows = rows.filter(topic=topic)
    return int(rows.count()) if dry_run else _delete(rows)


def clean_up_inbox(using: str, older_than: timedelta, *, dry_run: bool = False) -> int:
    """Delete claims of the inbox that were made some time ago; a repeat after that counts as new.

    Returns:
        How many were, or would be, deleted.
    """
    claims = apps.get_model(APP_LABEL, "InboxClaim").objects.using(using)
    claims = claims.filter(claimed_at__lt=timezone.now() - older_than)
    return int(claims.count()) if dry_run else _delete(claims)


def _delete(rows: Any) -> int:
    deleted = after = 0
    while True:
        ids = list(
            rows.filter(pk__gt=after).order_by("pk").values_list("pk", flat=True)[:_DELETE_SIZE]
        )
        if not ids:
            return deleted
        after = ids[-1]
        # The conditions once more: a row that an operator replays just now stays.
        deleted += rows.filter(pk__in=ids)._raw_delete(rows.db)  # noqa: SLF001  # no row points at these


def outbox_stats(
    using: str, now: Callable[[], datetime] = timezone.now, *, closed: bool = True
) -> dict[str, Any]:
    """Return what to watch of one database's outbox.

    Arguments:
        using: the database.
        now: the time by which ages are counted.
        closed: whether to count stored and discarded rows too; there may be millions.

    Returns:
        ``states``: rows in each state; ``oldest_pending_seconds`` and
        ``oldest_recorded_seconds``: ages, or None; ``failed``: rows that wait for an operator;
        ``relays``: running relays; ``shards``: how many have an owner.
    """
    rows = outbox_rows(using)
    counted = [state for state in State if closed or state not in CLOSED]
    counts = dict(
        rows.filter(state__in=counted).values_list("state").annotate(Count("pk")).order_by()
    )
    states = {str(state): counts.get(state, 0) for state in counted}
    oldest = dict(
        rows.filter(state__in=OPEN).values_list("state").annotate(Min("created_at")).order_by()
    )
    ages = {state: max(0.0, (now() - moment).total_seconds()) for state, moment in oldest.items()}
    lease = timedelta(seconds=OutboxSettings.read().lease)
    relays = apps.get_model(APP_LABEL, "OutboxRelay").objects.using(using)
    shards = apps.get_model(APP_LABEL, "OutboxShard").objects.using(using)
    return {
        "database": using,
        "states": states,
        "failed": sum(states[state] for state in FAILED),
        "oldest_pending_seconds": ages.get(State.PENDING),
        "oldest_recorded_seconds": ages.get(State.RECORDED),
        "relays": relays.filter(seen_at__gt=Now() - lease).count(),
        "shards": shards.exclude(owner="").filter(expires_at__gt=Now()).count(),
    }
