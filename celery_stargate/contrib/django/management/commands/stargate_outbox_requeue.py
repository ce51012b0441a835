"""``manage.py stargate_outbox_requeue``: send failed rows again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q
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
        parser.add_argument("--limit", type=positive, help="at most so many, the oldest first")
        parser.add_argument("--dry-run", action="store_true", help="count only")

    def handle(self, *args: Any, **options: Any) -> None:
        """Requeue them."""
        rows = outbox_rows(options["database"]).filter(state__in=options["state"] or FAILED)
        if options["contexts"]:
            chosen = Q()
            for context in options["contexts"]:
                try:
                    row_id, attempt = parse_context(context)
                except ValueError as error:
                    raise CommandError(str(error)) from None
                chosen |= Q(uuid=row_id, attempt=attempt)
            rows = rows.filter(chosen)
        topic = topic_name(options["topic"])
        if topic is not None:
            rows = rows.filter(topic=topic)
        if options["key"] is not None:
            rows = rows.filter(key=options["key"])
        if options["older_than"] is not None:
            rows = rows.filter(closed_at__lt=timezone.now() - options["older_than"])
        if options["limit"]:
            ids = list(rows.order_by("pk").values_list("pk", flat=True)[: options["limit"]])
            rows = rows.filter(pk__in=ids)
        if options["dry_run"]:
            self.stdout.write(f"{rows.count()} rows would be requeued")
            return
        self.stdout.write(f"requeued {requeue(rows)} rows")
