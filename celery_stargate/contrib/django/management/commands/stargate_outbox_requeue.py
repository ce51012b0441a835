"""``manage.py stargate_outbox_requeue``: send failed rows again."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from celery_stargate.contrib.django.contexts import parse_context
from celery_stargate.contrib.django.management.arguments import (
    add_database,
    duration,
    positive,
    topic_name,
)
from celery_stargate.contrib.django.operations import requeue
from celery_stargate.contrib.django.rows import outbox_rows
from celery_stargate.contrib.django.states import FAILED, State

_Item = TypeVar("_Item")
#: The UUID of a row, and the number of the attempt.
_Attempt = tuple[uuid.UUID, int]

#: How many rows one query names: databases bound its parameters, and SQLite its depth.
_CHUNK = 500


class Command(BaseCommand):
    """Failed rows go to Pulsar again, each under a new attempt."""

    help = "Sends refused and unknown rows again; an unknown one may reach Pulsar twice."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        add_database(parser)
        parser.add_argument("contexts", nargs="*", help="only these contexts; by default all")
        parser.add_argument(
            "--state",
            choices=[*map(str, FAILED), str(State.DISCARDED)],
            action="append",
            help="only rows in this state; may be repeated; by default refused and unknown",
        )
        parser.add_argument("--topic", help="only rows of this topic")
        parser.add_argument("--key", help="only rows with this key")
        parser.add_argument(
            "--older-than", type=duration, help="only rows that failed so long ago: 15m, 12h, 7d"
        )
        parser.add_argument("--limit", type=positive, help="how many at most, the oldest first")
        parser.add_argument("--dry-run", action="store_true", help="count only")

    def handle(self, *args: Any, **options: Any) -> None:
        """Requeue them."""
        rows = outbox_rows(options["database"]).filter(state__in=options["state"] or FAILED)
        topic = topic_name(options["topic"])
        if topic is not None:
            rows = rows.filter(topic=topic)
        if options["key"] is not None:
            rows = rows.filter(key=options["key"])
        if options["older_than"] is not None:
            rows = rows.filter(closed_at__lt=timezone.now() - options["older_than"])
        parts = list(_parts(rows, _attempts(options["contexts"]), options["limit"]))
        if options["dry_run"]:
            self.stdout.write(f"{sum(part.count() for part in parts)} rows would be requeued")
            return
        self.stdout.write(f"requeued {sum(map(requeue, parts))} rows")


def _attempts(contexts: Iterable[str]) -> list[_Attempt]:
    try:
        return [parse_context(context) for context in contexts]
    except ValueError as error:
        raise CommandError(
            f"{error}; give its UUID, or UUID.2 for its second attempt, as the admin and the logs "
            "show it"
        ) from None


def _parts(rows: Any, attempts: Sequence[_Attempt], limit: int | None) -> Iterator[Any]:
    """Yield the rows that are meant, in queries of a bounded size.

    Arguments:
        rows: by the other options.
        attempts: only these; all of them if it is empty.
        limit: at most so many, the oldest first.
    """
    if attempts:
        keys = sorted(key for some in _chunks(attempts) for key in _keys(rows, some))[:limit]
    elif limit:
        keys = list(rows.order_by("pk").values_list("pk", flat=True)[:limit])
    else:
        yield rows
        return
    for some in _chunks(keys):
        yield rows.filter(pk__in=some)


def _keys(rows: Any, attempts: Sequence[_Attempt]) -> Iterator[int]:
    wanted = set(attempts)
    found = rows.filter(uuid__in={row_id for row_id, _ in wanted})
    for key, row_id, attempt in found.values_list("pk", "uuid", "attempt"):
        if (row_id, attempt) in wanted:
            yield key


def _chunks(whole: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for begin in range(0, len(whole), _CHUNK):
        yield whole[begin : begin + _CHUNK]
