"""Close rows: each attempt once, by Pulsar's receipt or by its failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from celery.canvas import Signature
from django.db import connections, transaction
from django.utils import timezone

from celery_stargate.contrib.django import lanes
from celery_stargate.contrib.django.contexts import callback_task_id, parse_context
from celery_stargate.contrib.django.rows import outbox_model, outbox_rows, storable
from celery_stargate.contrib.django.states import FAILED, OPEN, State, sources
from celery_stargate.support.log import logger_of

__all__ = ["CLOSE_TASK", "check_outcome", "close_row", "close_rows", "close_signature"]

logger = logger_of(__name__)

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


def close_signature(using: str, queue: str | None = None) -> Any:
    """Return the signature that gets a row's outcome.

    Arguments:
        using: the database that holds the row.
        queue: of Celery's; None for the task's usual one.
    """
    options = {} if queue is None else {"queue": queue}
    return Signature(CLOSE_TASK, kwargs={"using": using}, options=options)


def check_outcome(outcome: Mapping[str, Any]) -> None:
    """Check that an outcome is one of an outbox row.

    Raises:
        ValueError: it is not.
    """
    parse_context(outcome["context"])
    if outcome["status"] not in _STATES:
        raise ValueError(f"an outcome has no status {outcome['status']!r}")


def close_row(using: str, outcome: Mapping[str, Any]) -> bool:
    """Give a row its outcome, and publish its callback; a repeat changes nothing.

    Returns:
        Whether the row was open and is closed now.

    Raises:
        ValueError: the outcome is not one of an outbox row.
        kombu.exceptions.OperationalError: the callback was not published; try again.
    """
    return close_rows(using, [outcome]) == 1


def close_rows(using: str, outcomes: Sequence[Mapping[str, Any]]) -> int:
    """Give rows their outcomes in one transaction, and publish their callbacks.

    Callbacks are published first: a row that is closed has had its own. A crash in between
    publishes them again, under the same task ids. One that can never be published is logged, and
    its row closed with that as its reason: it would hold up all others.

    Returns:
        How many rows were open, or had failed and are stored after all, and are closed now.

    Raises:
        ValueError: an outcome is not one of an outbox row.
        kombu.exceptions.OperationalError: a callback was not published; try all again.
    """
    places = [parse_context(outcome["context"]) for outcome in outcomes]
    rows = outbox_rows(using)
    waiting = {
        (row["uuid"], row["attempt"]): row
        for row in rows.filter(
            uuid__in={row_id for row_id, _ in places}, state__in=(*OPEN, *FAILED)
        ).values("pk", "uuid", "attempt", "state", "on_ack", "on_error")
    }
    known: list[_Known] = []
    for place, outcome in zip(places, outcomes, strict=True):
        row = waiting.pop(place, None)
        if row is None or row["state"] not in sources(_STATES[outcome["status"]]):
            logger.info("outbox row is closed or gone already", context=outcome["context"])
            continue
        known.append(_known(row, outcome, _call_back(row, outcome)))
    # In the order in which the relay notes that rows are in their lanes, for both lock them.
    known.sort(key=lambda each: each.pk)
    # One row needs no transaction around its one statement.
    with transaction.atomic(using=using) if len(known) > 1 else nullcontext():
        if len(known) > 1 and connections[using].vendor == "postgresql":
            return _close_together(using, known)
        return sum(_close(rows, each) for each in known)


def _call_back(row: Mapping[str, Any], outcome: Mapping[str, Any]) -> str:
    """Publish the callback of an outcome; return why it never can be, or an empty text."""
    context = outcome["context"]
    option = "on_ack" if _STATES[outcome["status"]] is State.STORED else "on_error"
    if not row[option]:
        return ""
    stargate = lanes.current_stargate()
    try:
        lanes.trigger(stargate, row[option], dict(outcome), callback_task_id(context, option))
    except Exception as error:
        # In eager mode the callback ran here, and the error is its own.
        if lanes.is_eager(stargate) or lanes.may_pass(error):
            raise
        logger.exception(
            "%s cannot be published, and its outbox row is closed", option, context=context
        )
        return f"{option} was not published: {type(error).__name__}: {error}"
    return ""


class _Known(NamedTuple):
    """What a row is closed with."""

    pk: int
    attempt: int
    target: State
    message_id: str
    code: str
    reason: str


def _known(row: Mapping[str, Any], outcome: Mapping[str, Any], problem: str) -> _Known:
    target = _STATES[outcome["status"]]
    stored = target is State.STORED
    told = "" if stored else outcome.get("reason", "no reason was given")
    return _Known(
        pk=row["pk"],
        attempt=row["attempt"],
        target=target,
        message_id=outcome.get("message_id") or "" if stored else "",
        code=outcome["status"] if stored else storable(outcome.get("code", "failed"))[:100],
        reason=storable("; ".join(filter(None, (told, problem)))),
    )


def _close(rows: Any, known: _Known) -> int:
    open_rows = rows.filter(pk=known.pk, attempt=known.attempt, state__in=sources(known.target))
    return int(
        open_rows.update(
            state=known.target,
            message_id=known.message_id,
            code=known.code,
            reason=known.reason,
            closed_at=timezone.now(),
        )
    )


def _close_together(using: str, known: Sequence[_Known]) -> int:
    """Do as :func:`_close` does for each row, by one statement of PostgreSQL for each state."""
    connection = connections[using]
    table = connection.ops.quote_name(outbox_model()._meta.db_table)  # noqa: SLF001  # public
    statement = (
        f"UPDATE {table} AS row SET state = %s, closed_at = %s, message_id = given.message_id, "  # noqa: S608  # no user's text
        "code = given.code, reason = given.reason FROM unnest(%s::bigint[], %s::bigint[], "
        "%s::text[], %s::text[], %s::text[]) AS given (id, attempt, message_id, code, reason) "
        "WHERE row.id = given.id AND row.attempt = given.attempt AND row.state = ANY(%s)"
    )
    closed, now = 0, timezone.now()
    with connection.cursor() as cursor:
        for target in dict.fromkeys(each.target for each in known):
            some = [each for each in known if each.target is target]
            columns = zip(
                *((each.pk, each.attempt, *each[3:]) for each in some),
                strict=True,
            )
            before = [state.value for state in sources(target)]
            cursor.execute(statement, [target.value, now, *map(list, columns), before])
            closed += cursor.rowcount
    return closed
