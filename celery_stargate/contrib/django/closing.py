"""Close rows: each attempt once, by Pulsar's receipt or by its failure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from celery.canvas import Signature
from django.utils import timezone

from celery_stargate.contrib.django import lanes
from celery_stargate.contrib.django.contexts import callback_task_id, parse_context
from celery_stargate.contrib.django.rows import outbox_rows
from celery_stargate.contrib.django.states import OPEN, State, sources

__all__ = ["CLOSE_TASK", "close_row", "close_signature"]

logger = logging.getLogger("celery_stargate")

#: The task that each receipt and each failure of an outbox row triggers.
CLOSE_TASK = "celery_stargate.outbox.close"

#: A receipt's or a failure's status → the state that it brings.
_STATES = {
    "stored": State.STORED,
    "deduplicated": State.STORED,
    "transient": State.STORED,
    "refused": State.REFUSED,
    "unknown": State.UNKNOWN,
}


def close_signature(using: str) -> Any:
    """Return the signature that gets a row's outcome."""
    return Signature(CLOSE_TASK, kwargs={"using": using})


def close_row(using: str, outcome: Mapping[str, Any]) -> bool:
    """Give a row its outcome, and publish its callback; a repeat changes nothing.

    The callback is published first: a row that is closed has had it. A crash in between publishes
    it again, under the same task id.

    Returns:
        Whether the row was open and is closed now.

    Raises:
        ValueError: the outcome is not one of an outbox row.
        kombu.exceptions.OperationalError: the callback was not published; try again.
    """
    context = outcome["context"]
    row_id, attempt = parse_context(context)
    target = _STATES[outcome["status"]]
    rows = outbox_rows(using).filter(uuid=row_id, attempt=attempt)
    row = rows.filter(state__in=OPEN).values("on_ack", "on_error").first()
    if row is None:
        logger.info("outbox row %s is closed or gone; its outcome changes nothing", context)
        return False
    option = "on_ack" if target is State.STORED else "on_error"
    if row[option]:
        lanes.trigger(
            lanes.current_stargate(), row[option], dict(outcome), callback_task_id(context, option)
        )
    stored = target is State.STORED
    changed: int = rows.filter(state__in=sources(target)).update(
        state=target,
        message_id=outcome.get("message_id") or "" if stored else "",
        code=outcome["status"] if stored else outcome.get("code", "failed")[:100],
        reason="" if stored else outcome.get("reason", "no reason was given"),
        closed_at=timezone.now(),
    )
    return changed == 1
