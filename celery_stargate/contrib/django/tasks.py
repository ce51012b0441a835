"""The Celery tasks of the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from celery import Task, shared_task
from django.db.utils import Error as DatabaseError
from kombu.exceptions import OperationalError

from celery_stargate.contrib.django.closing import CLOSE_TASK, close_row
from celery_stargate.contrib.django.operations import clean_up, clean_up_inbox
from celery_stargate.contrib.django.relay import run_burst
from celery_stargate.contrib.django.rows import outbox_alias
from celery_stargate.errors import shown
from celery_stargate.model.durations import LONGEST, is_duration

__all__ = ["cleanup", "close", "relay"]


class _Close(Task):  # type: ignore[type-arg]
    abstract = True

    def retry(self, *args: Any, **options: Any) -> Any:
        """Retry, but not in eager mode: Celery would retry at once, and for ever."""
        error = options.get("exc")
        if self.request.is_eager and error is not None:
            raise error
        return super().retry(*args, **options)


@shared_task(
    base=_Close,
    name=CLOSE_TASK,
    ignore_result=True,
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(DatabaseError, OperationalError),
    max_retries=None,
    retry_backoff=1,
    retry_backoff_max=60,
)
def close(outcome: Mapping[str, Any], using: str = "default") -> bool:
    """Close the row of an outcome. What triggers it is the receipt, or the failure.

    Arguments:
        outcome: the receipt or failure, as a mapping.
        using: the database that holds the row.
    """
    return close_row(using, outcome)


@shared_task(name="celery_stargate.outbox.relay", ignore_result=True)
def relay(using: str | None = None) -> int:
    """Hand over what waits, for Celery beat, where no relay process runs. Returns how many rows.

    Arguments:
        using: the database; by default the router's choice for the outbox.
    """
    return run_burst(using or outbox_alias())


@shared_task(name="celery_stargate.outbox.cleanup", ignore_result=True)
def cleanup(
    using: str | None = None,
    older_than: float = 7 * 86400.0,
    topic: str | None = None,
    inbox_older_than: float | None = None,
) -> int:
    """Delete closed rows, and old claims of the inbox, for Celery beat. Returns how many.

    Arguments:
        using: the database; by default the router's choice for the outbox.
        older_than: seconds since the row was closed.
        topic: only rows of this topic, by its full name.
        inbox_older_than: seconds since a claim was made; None keeps all claims.

    Raises:
        ValueError: an age is no number of seconds above 0, or is too long; nothing was deleted.
    """
    age = _age("older_than", older_than)
    inbox_age = None if inbox_older_than is None else _age("inbox_older_than", inbox_older_than)
    using = using or outbox_alias()
    deleted = clean_up(using, age, topic=topic)
    return deleted if inbox_age is None else deleted + clean_up_inbox(using, inbox_age)


def _age(name: str, seconds: object) -> timedelta:
    if not is_duration(seconds):
        raise ValueError(
            f"{name} must be seconds, above 0 and at most {LONGEST:.0f}, not {shown(seconds)}"
        )
    return timedelta(seconds=seconds)
