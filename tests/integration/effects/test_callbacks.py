"""``trigger.py`` on real brokers: a batch of callbacks leaves whole, or what did not is known."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty
from typing import Any

import pytest
import redis
from celery import Celery, Signature
from celery.result import denied_join_result
from kombu import Producer
from kombu.exceptions import OperationalError

from celery_stargate import Receipt
from celery_stargate.effects.callbacks import callback_id, trigger_together
from celery_stargate.effects.results.write import ResultBatch
from celery_stargate.effects.run import Effects
from celery_stargate.effects.signatures import freeze_callback, pack
from celery_stargate.effects.together import Together
from celery_stargate.lanes.record import Record, Settled
from celery_stargate.model.follow_up import PRODUCE
from tests.integration.conftest import MakeApp
from tests.integration.rig import Proxy, Triggered
from tests.servers.fixtures import ServerAddress
from tests.unit.helpers import TOPIC

#: kombu's Producer has it from 5.7 on.
batching = pytest.mark.skipif(not hasattr(Producer, "batch"), reason="kombu 5.7 batches")


@pytest.fixture
def app(make_app: MakeApp) -> Celery:
    """An app that needs no Pulsar here."""
    return make_app(None)


def calling(app: Celery, context: str, **options: Any) -> Settled:
    """Return a context that has its receipt, and a callback for it."""
    signature: Signature[Any] = app.signature("shop.ship", options=options)
    record = Record(context, on_ack=freeze_callback("on_ack", signature, app))
    return Settled(record, (Receipt(context=context),))


@batching
def test_a_batch_is_one_round_trip(app: Celery, triggered: Triggered) -> None:
    """Nothing leaves before the end, and then all of it does, once."""
    with denied_join_result():
        # Its connection declares the queue.
        assert len(trigger_together(app, [calling(app, "first"), calling(app, "second")])) == 2
    triggered.next()
    triggered.next()
    given = [calling(app, f"c-{number}") for number in range(50)]
    pipelines: list[int] = []
    execute = redis.client.Pipeline.execute

    def count(self: Any, *args: Any, **options: Any) -> Any:
        pipelines.append(len(self.command_stack))
        return execute(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch, denied_join_result():
        patch.setattr(redis.client.Pipeline, "execute", count)
        assert len(trigger_together(app, given)) == 50
    assert pipelines == [50]
    ids = [triggered.next()["id"] for _ in given]
    assert ids == [callback_id(each.record.context, "", "on_ack") for each in given]
    assert triggered.none()


def test_one_queue_that_takes_nothing(
    app: Celery,
    triggered: Triggered,
    redis_server: ServerAddress,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That is logged, and not repeated; the others are published and done, one by one."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(f"{prefix}:broken", "no list")
    given = [calling(app, "a"), calling(app, "bad", queue="broken"), calling(app, "b")]
    assert Effects(app, None).run(given) == ["a", "bad", "b"]
    assert "cannot publish callbacks; this is not repeated context=bad" in caplog.text
    # At least once: what of the batch was published is published again, under the same id.
    expected = {callback_id(context, "", "on_ack") for context in "ab"}
    found = set()
    with suppress(Empty):
        while True:
            found.add(triggered.next(0.3)["id"])
    assert found == expected


def test_no_context_is_done_before_its_callback_is_out(
    make_app: MakeApp, redis_server: ServerAddress
) -> None:
    """The broker goes when all is said but nothing was sent: all stay due, and are done later."""
    port = int(redis_server.url.rpartition(":")[2].partition("/")[0])
    with Proxy(port) as proxy, denied_join_result():
        app = make_app(
            None,
            conf={
                "broker_url": f"redis://127.0.0.1:{proxy.port}/0",
                "task_publish_retry_policy": {"max_retries": 0},
            },
        )
        now = 0.0
        effects = Effects(app, None, monotonic=lambda: now)
        assert effects.run([calling(app, "0"), calling(app, "1")]) == ["0", "1"]
        given = [calling(app, "a"), calling(app, "b")]
        proxy.close()
        assert effects.run(given) == []
        proxy.open()
        assert effects.run(given) == [], "what is away is not tried at once"
        now = 5.0
        assert effects.run(given) == ["a", "b"]
        triggered = Triggered(app)
        ids = [triggered.next()["id"] for _ in range(4)]
        assert ids == [callback_id(context, "", "on_ack") for context in ("0", "1", "a", "b")]


def test_rabbitmq(make_app: MakeApp, rabbitmq: ServerAddress) -> None:
    """One channel for all; with confirms each is confirmed before it counts as published."""
    queue = f"callbacks-{uuid.uuid4().hex}"
    app = make_app(
        None,
        conf={
            "broker_url": rabbitmq.url,
            "broker_transport_options": {"confirm_publish": True},
            "task_default_queue": queue,
        },
    )
    given = [calling(app, context) for context in ("a", "b", "c")]
    with denied_join_result():
        assert trigger_together(app, given) == {"a", "b", "c"}
    triggered = Triggered(app)
    ids = [triggered.next()["id"] for _ in given]
    assert ids == [callback_id(context, "", "on_ack") for context in ("a", "b", "c")]
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.queue_delete(queue)


def chained(app: Celery, context: str) -> Settled:
    """Return a context with its receipt, and the next task of its chain."""
    step = {**app.signature("shop.after", task_id=f"after-{context}", queue="after")}
    request = pack("request", {"id": context, "task": PRODUCE, "chain": [step]})
    record = Record(context, task=PRODUCE, request=request)
    return Settled(record, (Receipt(context=context, topic=TOPIC),))


def after(app: Celery) -> list[str]:
    """Return the ids of the next tasks that are published."""
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        found = []
        while (message := channel.basic_get("after", no_ack=True)) is not None:
            found.append(message.headers["id"])
        return sorted(found)


def test_a_batch_that_does_not_leave_goes_one_by_one(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was in it: the broker may have a part of it, and gets it again with the same ids."""

    @contextmanager
    def lost(app: Celery) -> Iterator[Together]:
        with app.producer_or_acquire() as producer:
            yield Together(app, producer)
        raise OperationalError("away")

    monkeypatch.setattr("celery_stargate.effects.run.together", lost)
    contexts = [uuid.uuid4().hex for _ in range(3)]
    effects = Effects(app, None)
    assert effects.run([chained(app, each) for each in contexts]) == contexts
    assert set(after(app)) == {f"after-{each}" for each in contexts}
    assert {app.AsyncResult(each).state for each in contexts} == {"SUCCESS"}


def test_results_of_a_batch_that_are_not_stored_come_again(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay due; what goes on from them is published again."""
    flush, now = ResultBatch.flush, [0.0]

    def away(self: ResultBatch) -> None:
        raise ConnectionError("away")

    contexts = [uuid.uuid4().hex for _ in range(2)]
    effects = Effects(app, None, monotonic=lambda: now[0])
    monkeypatch.setattr(ResultBatch, "flush", away)
    assert effects.run([chained(app, each) for each in contexts]) == []
    monkeypatch.setattr(ResultBatch, "flush", flush)
    now[0] = 5.0
    assert effects.run([chained(app, each) for each in contexts]) == contexts
    assert after(app) == sorted([f"after-{each}" for each in contexts] * 2)
