"""``manage.py stargate_outbox_relay``: hand over outbox rows until stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from celery_stargate.contrib.django.closer import Closer
from celery_stargate.contrib.django.lanes import current_stargate
from celery_stargate.contrib.django.management.arguments import add_database, positive
from celery_stargate.contrib.django.relay import make_relay
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.support.stop_event import StopEvent

#: How long the present batch of closings may take after a stop, in seconds.
_CLOSER_TIMEOUT = 20.0


@contextmanager
def _stopping_by_signals(stop: StopEvent) -> Iterator[None]:
    """Set an event on SIGTERM or SIGINT; afterwards, they do what they did before."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Command(BaseCommand):
    """The relay process. Run one or more for each database."""

    help = "Hands over outbox rows that the commit's own hand-over missed."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        add_database(parser)
        parser.add_argument("--batch-size", type=positive, help="rows read at once")
        parser.add_argument(
            "--burst", action="store_true", help="end when no row is left for this relay"
        )
        parser.add_argument(
            "--liveness-file",
            type=Path,
            help="a file that is touched after each pass, also while database or Redis is away: "
            "it gets old if the relay hangs",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until SIGTERM or SIGINT, then finish the present batch."""
        settings = OutboxSettings.read()
        if options["batch_size"]:
            settings = replace(settings, batch_size=options["batch_size"])
        stop = StopEvent()
        with _stopping_by_signals(stop):
            self._run(settings, stop, options)

    def _run(self, settings: OutboxSettings, stop: StopEvent, options: dict[str, Any]) -> None:
        closer = None
        queue = settings.close_queue_of(options["database"])
        if queue is not None and not options["burst"]:
            closer = Closer(current_stargate(), queue, stop)
            closer.start()
        relay = make_relay(options["database"], stop, settings)
        self.stdout.write(f"relay {relay.leases.name} on {options['database']}")
        liveness: Path | None = options["liveness_file"]
        total = relay.run(
            burst=options["burst"], on_pass=liveness.touch if liveness else lambda: None
        )
        if closer is not None:
            closer.join(_CLOSER_TIMEOUT)
        self.stdout.write(f"handed over {total} rows")
