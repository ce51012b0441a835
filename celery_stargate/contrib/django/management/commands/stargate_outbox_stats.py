"""``manage.py stargate_outbox_stats``: what to watch of the outbox."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from celery_stargate.contrib.django.management.arguments import add_database
from celery_stargate.contrib.django.operations import outbox_stats


class Command(BaseCommand):
    """Counts and ages; alert on the age of the oldest pending row."""

    help = "Shows counts by state, ages of the oldest rows, and running relays."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        add_database(parser)
        parser.add_argument("--json", action="store_true", help="one JSON object, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print them."""
        stats = outbox_stats(options["database"])
        if options["json"]:
            self.stdout.write(json.dumps(stats))
            return
        for state, count in stats["states"].items():
            self.stdout.write(f"{state:<10} {count}")
        for name in ("pending", "recorded"):
            age = stats[f"oldest_{name}_seconds"]
            if age is not None:
                self.stdout.write(f"oldest {name}: {age:.1f} s")
        self.stdout.write(f"relays: {stats['relays']}, shards with an owner: {stats['shards']}")
