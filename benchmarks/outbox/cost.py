"""What `outbox.produce` costs its caller, beside a plain `create` of the same row."""

from __future__ import annotations

import time
from statistics import median

from django.db import transaction

from benchmarks.outbox.figures import Cost
from celery_stargate.contrib.django.rows import outbox_model

__all__ = ["measure_cost"]

_PAIRS, _PER_TRANSACTION = 1000, 50


def measure_cost() -> Cost:
    """Call both in turns, in the same transactions; the medians."""
    from celery_stargate.contrib.django import outbox

    produce: list[float] = []
    create: list[float] = []
    model = outbox_model()
    payload = b"x" * 400
    for _ in range(_PAIRS // _PER_TRANSACTION):
        with transaction.atomic():
            for number in range(_PER_TRANSACTION):
                began = time.perf_counter()
                handle = outbox.produce((f"k{number}", payload))
                middle = time.perf_counter()
                model.objects.create(
                    topic=handle.topic, key=f"k{number}", shard=1, payload=payload, state="stored"
                )
                ended = time.perf_counter()
                produce.append(middle - began)
                create.append(ended - middle)
    model.objects.all().delete()
    return Cost(1e6 * median(produce), 1e6 * median(create))
