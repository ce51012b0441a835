"""Messages as rows of the outbox, and back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from celery_stargate.contrib.django.apps import APP_LABEL
from celery_stargate.contrib.django.lanes import Entry
from celery_stargate.contrib.django.shards import shard_of
from celery_stargate.contrib.django.states import State, sources
from celery_stargate.errors import InvalidMessage

__all__ = [
    "mark_recorded",
    "model_of",
    "new_row",
    "outbox_alias",
    "outbox_model",
    "outbox_rows",
    "relax",
    "storable",
]

#: From how many primary keys on they are passed as an array.
_MANY = 10
#: What the columns hold.
_MAX_TEXT = 255


def outbox_model() -> Any:
    """Return the outbox's model; it is loaded with Django's apps, not with this module.

    Raises:
        ImproperlyConfigured: the app is not installed.
    """
    return model_of("OutboxMessage")


def outbox_alias() -> str:
    """Return the database of rows for which none is named: the router's choice.

    Raises:
        ImproperlyConfigured: the app is not installed.
    """
    return str(router.db_for_write(outbox_model()))


def model_of(name: str) -> Any:
    """Return a model of this app.

    Raises:
        ImproperlyConfigured: the app is not installed.
    """
    try:
        return apps.get_model(APP_LABEL, name)
    except LookupError:
        raise ImproperlyConfigured(
            "'celery_stargate.contrib.django' is not in INSTALLED_APPS: add it, and run "
            "manage.py migrate"
        ) from None


def outbox_rows(using: str) -> Any:
    """Return all rows of the outbox of one database."""
    return outbox_model().objects.using(using)


def new_row(entry: Entry, row_id: uuid.UUID, on_ack: str, on_error: str) -> Any:
    """Return the unsaved row of a checked message.

    Raises:
        InvalidMessage: its topic or key is longer than the table's columns.
    """
    message = entry.message
    for name, value in (("topic", entry.topic), ("key", message.key or "")):
        if len(value) > _MAX_TEXT:
            raise InvalidMessage(
                f"the {name} has {len(value)} characters and the outbox keeps {_MAX_TEXT}"
            )
    if message.key is not None and "\x00" in message.key:
        raise InvalidMessage("the key holds a NUL character, which databases do not store")
    attributes = _attributes(message.to_dict())
    for name, value in (attributes or {}).items():
        if _has_nul(value):
            raise InvalidMessage(f"{name} holds a NUL character, which databases do not store")
    payload = message.payload
    return outbox_model()(
        uuid=row_id,
        topic=entry.topic,
        key=message.key,
        shard=shard_of(entry.topic, message.key, row_id),
        payload=payload.encode() if isinstance(payload, str) else payload,
        attributes=attributes,
        delivery_timeout=entry.timeout,
        on_ack=on_ack,
        on_error=on_error,
    )


def storable(text: str) -> str:
    """Return a text as every database stores it: without NUL, and without half characters.

    For what others wrote and a row must not fail for: a reason, an id in a log.
    """
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def _has_nul(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_nul, (*value, *value.values())))
    if isinstance(value, list):
        return any(map(_has_nul, value))
    return isinstance(value, str) and "\x00" in value


def _attributes(fields: dict[str, Any]) -> dict[str, Any] | None:
    kept = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in fields.items()
        if name not in {"payload", "key"}
    }
    if "replication_clusters" in kept:
        kept["replication_clusters"] = list(kept["replication_clusters"])
    return kept or None


def mark_recorded(rows: Any, ids: Mapping[str, Iterable[Any]], now: datetime) -> int:
    """Note that rows are in their lanes; one that has its outcome already stays as it is.

    Arguments:
        rows: the rows that may change.
        ids: lane's name → primary keys.
    """
    return sum(
        _with_ids(rows, list(some))
        .filter(state__in=_before_recorded)
        .update(state=State.RECORDED, lane=lane, recorded_at=now, reason="")
        for lane, some in ids.items()
    )


def _with_ids(rows: Any, ids: list[Any]) -> Any:
    """Return those rows that have some primary keys.

    To PostgreSQL they go as one array: psycopg takes longer to write hundreds of arguments than to
    wait for the answer.
    """
    if connections[rows.db].vendor != "postgresql" or len(ids) < _MANY:
        return rows.filter(pk__in=ids)
    table = connections[rows.db].ops.quote_name(rows.model._meta.db_table)  # noqa: SLF001  # public
    return rows.extra(where=[f'{table}."id" = ANY(%s)'], params=[ids])  # noqa: S610  # no user's text


def relax(using: str) -> None:
    """Let PostgreSQL not wait for its disk in this transaction.

    Only for the note that rows are in their lanes: if a crash of the database takes it back, they
    are put again, under the same context.
    """
    connection = connections[using]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit TO off")


_before_recorded = sources(State.RECORDED)
