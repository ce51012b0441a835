"""CPU per message of the effects alone: `python -m benchmarks.profile_effects --redis URL`.

What `delay()` would put is settled by made-up receipts and given to the effects in batches, as a
lane's owner does; Redis is real, Pulsar is not needed.
"""

from __future__ import annotations

import argparse
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import redis
from celery import Celery
from celery.result import denied_join_result

from celery_stargate import Receipt, Stargate, produce_task
from celery_stargate.effects.run import Effects
from celery_stargate.lanes.record import (
    RECORD_VERSION,
    Record,
    decode_settled,
    encode_outcome,
    encode_record,
)

TOPIC = "persistent://public/default/profile"
#: As many as a lane's owner gives at once.
_BATCH = 100
_ROUNDS = 5

#: What is measured, by the options of the call.
SHAPES: dict[str, dict[str, Any]] = {
    "with results": {},
    "ignore_result": {"ignore_result": True},
    "on_ack": {"on_ack": {"task": "shop.ship"}},
    "on_ack, ignore_result": {"on_ack": {"task": "shop.ship"}, "ignore_result": True},
}


class _Noting:
    """Stand where the lanes do, and keep the records."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def put(self, *, record: Record, **_: Any) -> None:
        self.records.append(record)


def records(app: Celery, count: int, options: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return records and outcomes as Redis gives them to an owner."""
    stargate, noting = Stargate.of(app), _Noting()
    vars(stargate.runtime).pop("recorder", None)
    stargate.runtime.__dict__["outbox"] = noting
    # Nobody looks for workers while the calls are made.
    vars(stargate.runtime)["owner_notice"] = SimpleNamespace(look=lambda: None)
    given = dict(options)
    on_ack = given.pop("on_ack", None)
    for number in range(count):
        produce_task.apply_async((f"message {number}",), {"on_ack": on_ack}, **given)
    return [
        (
            b"%d 0 1 0\n" % RECORD_VERSION + encode_record(record),
            b"[" + encode_outcome(_receipt(record.context, number)) + b"]",
        )
        for number, record in enumerate(noting.records)
    ]


def _receipt(context: str, number: int) -> Receipt:
    return Receipt(
        context=context,
        topic=TOPIC,
        message_id="CAwQADAA",
        ledger_id=12,
        entry_id=number,
        partition=-1,
        batch_index=-1,
    )


def measure(app: Celery, count: int, options: dict[str, Any]) -> tuple[float, float]:
    """Return the microseconds of CPU a message that reading and the effects take, at best."""
    effects = Effects(app, None)
    best = []
    for _ in range(_ROUNDS):
        # As in a worker, nobody waits here for the results of what is published.
        with denied_join_result():
            stored = records(app, count, options)
            start = time.process_time()
            settled = [decode_settled(record, outcomes, TOPIC) for record, outcomes in stored]
            read = time.process_time()
            for first in range(0, count, _BATCH):
                batch = settled[first : first + _BATCH]
                assert len(effects.run(batch)) == len(batch)
            best.append((read - start, time.process_time() - read))
    decoding, doing = (min(times) / count * 1e6 for times in zip(*best, strict=True))
    return decoding, doing


@contextmanager
def make_app(redis_url: str, broker_url: str) -> Iterator[Celery]:
    """Make an app whose keys in Redis, and whose queue, are gone afterwards."""
    prefix = f"profile-{uuid.uuid4().hex[:12]}:"
    app = Celery("profile", broker=broker_url, backend=redis_url)
    app.conf.update(
        broker_transport_options={"global_keyprefix": prefix} if "redis" in broker_url else {},
        result_backend_transport_options={"global_keyprefix": prefix},
        task_default_queue=f"{prefix}callbacks",
        stargate_url="ws://pulsar.invalid:8080",
        stargate_redis_url=redis_url,
        stargate_topic=TOPIC,
    )
    Stargate(app)
    try:
        yield app
    finally:
        with app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            channel.queue_delete(app.conf.task_default_queue)
        with redis.Redis.from_url(redis_url) as client:
            for key in client.scan_iter(f"{prefix}*", count=1000):
                client.delete(key)


def main() -> None:
    """Print a line for each shape of call."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile_effects", description=__doc__
    )
    parser.add_argument("--redis", default="redis://127.0.0.1:6379/0", metavar="URL")
    parser.add_argument("--broker", metavar="URL", help="where callbacks go; by default to Redis")
    parser.add_argument("--messages", type=int, default=2000)
    options = parser.parse_args()
    print("| call | reading a record, µs | its effects, µs |", "|---|---|---|", sep="\n")
    with make_app(options.redis, options.broker or options.redis) as app:
        for name, shape in SHAPES.items():
            decoding, doing = measure(app, options.messages, shape)
            print(f"| {name} | {decoding:.1f} | {doing:.1f} |", flush=True)


if __name__ == "__main__":
    main()
