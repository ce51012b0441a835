"""Rows a second of one relay process: ours, and that of django-celery-outbox, in turns."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from statistics import median

from celery import Celery
from django.db import connection, transaction

from benchmarks.bounded import tell
from benchmarks.outbox.figures import Rate
from benchmarks.outbox.project import has_rival
from celery_stargate.contrib.django.rows import outbox_rows

__all__ = ["measure_relays"]

_PAYLOAD = json.dumps({"id": 1, "item": "lamp", "note": "x" * 400})
_ROUNDS = 3
_OURS, _THEIRS = 5_000, 300


def measure_relays(app: Celery) -> list[Rate]:
    """Write rows, and time each relay over them."""
    relays: dict[str, tuple[int, Callable[[int], None], Callable[[], None]]] = {
        "celery_stargate": (_OURS, _write_ours, _relay_ours),
    }
    if has_rival():
        relays["django-celery-outbox, as it comes"] = (
            _THEIRS,
            _write_theirs,
            lambda: _relay_theirs(app, 100),
        )
        relays["django-celery-outbox, `--batch-size 500`"] = (
            _THEIRS,
            _write_theirs,
            lambda: _relay_theirs(app, 500),
        )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in relays}
    for turn in range(_ROUNDS):
        for name, (count, write, relay) in relays.items():
            write(count)
            with connection.cursor() as cursor:
                cursor.execute("ANALYZE")
            wall, cpu = time.perf_counter(), time.process_time()
            relay()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            found[name].append((count / wall, count / cpu))
            tell(f"turn {turn + 1}: {name}: {count / wall:,.0f} rows/s")
    return [
        Rate(
            name,
            relays[name][0],
            median(each for each, _ in rates),
            median(each for _, each in rates),
        )
        for name, rates in found.items()
    ]


def _write_ours(count: int) -> None:
    from celery_stargate.contrib.django import outbox

    # What an earlier turn left in its lane would be looked at, now and then.
    outbox_rows("default").delete()
    messages = [(f"k{n % 100}", _PAYLOAD) for n in range(count)]
    with transaction.atomic():
        outbox.produce_many(messages)


def _relay_ours() -> None:
    from celery_stargate.contrib.django.relay import run_burst

    run_burst("default")


def _write_theirs(count: int) -> None:
    from django_celery_outbox.models import CeleryOutbox

    CeleryOutbox.objects.bulk_create(
        [
            CeleryOutbox(task_id=f"{n}", task_name="shop.tell", args=[_PAYLOAD], kwargs={})
            for n in range(count)
        ]
    )


def _relay_theirs(app: Celery, batch_size: int) -> None:
    import structlog
    from django_celery_outbox.models import CeleryOutbox
    from django_celery_outbox.relay import Relay, RelayConfig

    # It writes a line for each message: not what is measured.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    relay = Relay(app, RelayConfig.init(batch_size=batch_size, idle_time=0))
    while CeleryOutbox.objects.exists():
        relay._processing()  # noqa: SLF001  # its command does no more
