"""From the commit of a row to its receipt: `python -m benchmarks.outbox.latency` prints JSON.

A process of its own: its Django project is that of the tests.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from unittest import mock

import msgspec
from django.db import transaction
from django.test import override_settings

from benchmarks.outbox.figures import Latency
from celery_stargate.contrib.django import lanes, outbox
from tests.django_project.rig import OutboxRig
from tests.django_project.setup import configure, migrate, use_postgres
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

__all__ = ["main"]

_USING = "postgres"
_PER_SECOND, _WARM, _ROWS = 100, 100, 500
_TIMEOUT = 120.0


def main(pulsar_url: str) -> None:
    """Measure both ways into the lane, and print what was found."""
    configure()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="stargate-bench-")))
        postgres = opened.enter_context(PostgresServer(config={"fsync": "on"}))
        use_postgres(postgres.django)
        migrate(_USING)
        redis = opened.enter_context(RedisServer(folder / "redis"))
        rig = opened.enter_context(OutboxRig(_USING, redis.url, pulsar_url))
        opened.enter_context(mock.patch.object(lanes, "current_stargate", lambda: rig.stargate))
        queue = f"{rig.name}-close"
        opened.enter_context(override_settings(CELERY_STARGATE_OUTBOX_CLOSE_QUEUE=queue))
        celery = ("-A", "tests.django_project.celery", "worker", "-c", "1", "-l", "WARNING")
        for process in (
            rig.start("celery", *celery, "--without-mingle", "--without-gossip"),
            rig.relay(close_queue=queue, lease=15.0),
        ):
            opened.callback(process.wait)
            opened.callback(process.terminate)
        found = [
            # The first to be measured also warms what the second needs.
            _measure(rig, "by the caller, right after its commit", send_on_commit=True),
            _measure(rig, "by the relay, which NOTIFY wakes", send_on_commit=False),
        ]
    sys.stdout.buffer.write(msgspec.json.encode(found))


def _measure(rig: OutboxRig, how: str, *, send_on_commit: bool) -> Latency:
    with override_settings(CELERY_STARGATE_OUTBOX_SEND_ON_COMMIT=send_on_commit):
        _write(rig, _WARM)
        began = time.monotonic()
        committed = _write(rig, _ROWS)
        rate = _ROWS / (time.monotonic() - began)
    rows = rig.rows.filter(uuid__in=list(committed)).values_list("uuid", "closed_at")
    waits = sorted(1e3 * (closed.timestamp() - committed[str(row_id)]) for row_id, closed in rows)
    return Latency(how, len(waits), rate, median(waits), quantiles(waits, n=100)[98])


def _write(rig: OutboxRig, count: int) -> dict[str, float]:
    """Write so many rows, one in each transaction; return when each was committed."""
    committed: dict[str, float] = {}

    def stamp(place: int) -> None:
        committed[str(place)] = time.time()

    handles = []
    began = time.monotonic()
    for place in range(count):
        time.sleep(max(0.0, began + place / _PER_SECOND - time.monotonic()))
        with transaction.atomic(using=_USING):
            # The first of the transaction, so before the hand-over.
            transaction.on_commit(partial(stamp, place), using=_USING)
            handles.append(outbox.produce(f"{place}", using=_USING))
    end = time.monotonic() + _TIMEOUT
    while rig.rows.exclude(state="stored").exists():
        if time.monotonic() > end:
            raise TimeoutError(f"rows are not stored after {_TIMEOUT:g} s: {rig.states()}")
        time.sleep(0.2)
    return {str(handle.uuid): committed[str(place)] for place, handle in enumerate(handles)}


if __name__ == "__main__":
    main(sys.argv[1])
