"""The closer: rows closed in batches from a queue of their own, by Redis and by RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from celery import signature
from django.db import DatabaseError
from django.test import override_settings

from celery_stargate.contrib.django import closer, lanes
from celery_stargate.contrib.django.closer import Closer
from celery_stargate.contrib.django.closing import close_rows, close_signature
from celery_stargate.contrib.django.states import State
from celery_stargate.effects.callbacks import STARTED_HEADER
from celery_stargate.model.outcome import Failure, Receipt
from celery_stargate.support.stop_event import StopEvent
from tests.django_project.rig import OutboxRig
from tests.integration.rig import wait_for
from tests.servers.fixtures import ServerAddress

# The statements on SQLite are the unit tests' part; here it is about brokers.
pytestmark = pytest.mark.parametrize("using", ["postgres"], indirect=True)


@contextmanager
def closing(rig: OutboxRig) -> Iterator[None]:
    stop = StopEvent()
    thread = Closer(rig.stargate, f"{rig.name}-close", stop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(params=["redis", "amqp"])
def rig(
    request: pytest.FixtureRequest,
    using: str,
    redis_server: ServerAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[OutboxRig]:
    """The outbox with a queue for closing tasks."""
    broker = redis_server.url
    if request.param == "amqp":
        broker = request.getfixturevalue("rabbitmq").url
    with OutboxRig(using, redis_server.url, broker_url=broker) as rig:
        monkeypatch.setattr(lanes, "current_stargate", lambda: rig.stargate)
        with override_settings(CELERY_STARGATE_OUTBOX_CLOSE_QUEUE=f"{rig.name}-close"):
            yield rig


def publish(
    rig: OutboxRig, outcome: dict[str, Any], using: str | None = None, **options: Any
) -> None:
    """Publish the closing task of an outcome, as the owner of a lane does."""
    close = dict(close_signature(using or rig.using, f"{rig.name}-close"))
    rig.stargate.app.signature(close).apply_async((outcome,), **options)


def test_rows_are_closed_in_batches(rig: OutboxRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receipts and failures, each row by its own, in few transactions."""
    batches = []

    def counted(using: str, outcomes: Any) -> int:
        batches.append(len(outcomes))
        return close_rows(using, outcomes)

    monkeypatch.setattr(closer, "close_rows", counted)
    handles = rig.write(*[f"{n}" for n in range(60)])
    for n, handle in enumerate(handles):
        receipt = Receipt(context=handle.context, message_id=f"id-{n}").to_dict()
        failure = Failure(context=handle.context, reason="no such topic").to_dict()
        publish(rig, failure if n == 7 else receipt)
    with closing(rig):
        wait_for(lambda: rig.states() == {"stored", "refused"})
    assert sum(batches) == 60 and len(batches) < 30
    assert [row.message_id for row in rig.rows][:3] == ["id-0", "id-1", "id-2"]
    assert (handles[7].state(), handles[7].row().reason) == (State.REFUSED, "no such topic")


def test_what_is_no_closing_task_is_dropped(rig: OutboxRig) -> None:
    """It stops nothing that comes after it."""
    (handle,) = rig.write("one")
    publish(rig, {"context": "nonsense", "status": "stored"})
    publish(rig, {"context": handle.context, "status": "perhaps"})
    publish(rig, Receipt(context=handle.context).to_dict(), using="nowhere")
    signature("other.task", app=rig.stargate.app).apply_async(queue=f"{rig.name}-close")
    publish(rig, Receipt(context=handle.context, message_id="CAE=").to_dict())
    with closing(rig):
        wait_for(lambda: handle.state() is State.STORED)


def test_closing_tasks_that_are_kept_until_they_start_are_forgotten(rig: OutboxRig) -> None:
    """With ``stargate_callbacks="until_started"``: else each would be published again and again."""
    kept = rig.stargate.runtime.unstarted
    kept.keep({"closes": b"1", "misrouted": b"2", "waits": b"3"}, 0.01)
    (handle,) = rig.write("one")
    receipt = Receipt(context=handle.context, message_id="CAE=").to_dict()
    misrouted = signature("other.task", app=rig.stargate.app)
    misrouted.apply_async(queue=f"{rig.name}-close", headers={STARTED_HEADER: "misrouted"})
    publish(rig, receipt, headers={STARTED_HEADER: "closes"})
    with closing(rig):
        wait_for(lambda: handle.state() is State.STORED)
    assert set(kept.overdue(60, 60).again) == {"waits"}


def test_a_database_that_fails_gets_the_batch_again(
    rig: OutboxRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is acknowledged before the commit."""
    failures = [DatabaseError("away"), DatabaseError("away"), TypeError("a bug")]

    def failing(using: str, outcomes: Any) -> int:
        if failures:
            raise failures.pop()
        return close_rows(using, outcomes)

    monkeypatch.setattr(closer, "close_rows", failing)
    monkeypatch.setattr(closer, "_PAUSE", 0.05)
    handles = rig.write("one", "two")
    for handle in handles:
        publish(rig, Receipt(context=handle.context, message_id="CAE=").to_dict())
    with closing(rig):
        wait_for(lambda: rig.states() == {"stored"})
    assert not failures


@pytest.mark.parametrize("rig", ["redis"], indirect=True)
def test_a_task_that_arrives_while_the_connection_closes_comes_again(
    rig: OutboxRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has given it to the connection, and nobody has read it yet."""
    first, second = rig.write("one", "two")
    acknowledge, closes, failed = closer._acknowledge, close_rows, list[bool]()

    def close_while_waiting(using: str, outcomes: Any) -> int:
        # Meanwhile the connection waits for the next task.
        wait_for(lambda: any(each["cmd"] == "brpop" for each in rig.redis.client_list()))
        return closes(using, outcomes)

    def fail_once(closing: Any) -> None:
        if failed:
            acknowledge(closing)
            return
        failed.append(True)
        publish(rig, Receipt(context=second.context, message_id="CAE=").to_dict())
        with rig.stargate.app.connection_for_read() as connection:
            queue = cast("Any", connection.default_channel).queue_declare
            wait_for(lambda: not queue(f"{rig.name}-close", passive=True).message_count)
        raise DatabaseError("away")

    monkeypatch.setattr(closer, "close_rows", close_while_waiting)
    monkeypatch.setattr(closer, "_acknowledge", fail_once)
    monkeypatch.setattr(closer, "_PAUSE", 0.05)
    publish(rig, Receipt(context=first.context, message_id="CAE=").to_dict())
    with closing(rig):
        wait_for(lambda: rig.states() == {"stored"})
    assert failed
