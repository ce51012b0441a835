"""``manage.py stargate_outbox_cleanup``: delete rows that are done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from celery_stargate.contrib.django.management.arguments import (
    add_database,
    duration,
    topic_name,
)
from celery_stargate.contrib.django.operations import clean_up, clean_up_inbox


class Command(BaseCommand):
    """Stored and discarded rows go; open and failed ones stay."""

    help = "Deletes stored and discarded rows, and old claims of the inbox."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        add_database(parser)
        parser.add_argument(
            "--older-than",
            type=duration,
            default=timedelta(days=7),
            help="how long ago a row was closed: 30s, 15m, 12h, 7d, 2w; by default 7d",
        )
        parser.add_argument("--topic", help="only rows of this topic")
        parser.add_argument(
            "--inbox-older-than",
            type=duration,
            help="delete claims of the inbox too; a repeat of such a message counts as new",
        )
        parser.add_argument("--dry-run", action="store_true", help="count only")

    def handle(self, *args: Any, **options: Any) -> None:
        """Delete them, in small transactions."""
        using, dry_run = options["database"], options["dry_run"]
        verb = "would be deleted" if dry_run else "were deleted"
        count = clean_up(
            using, options["older_than"], topic=topic_name(options["topic"]), dry_run=dry_run
        )
        self.stdout.write(f"{count} outbox rows {verb}")
        if options["inbox_older_than"] is not None:
            count = clean_up_inbox(using, options["inbox_older_than"], dry_run=dry_run)
            self.stdout.write(f"{count} inbox claims {verb}")
