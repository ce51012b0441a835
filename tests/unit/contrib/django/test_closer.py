"""The closer beside a broker in memory: what it acknowledges, drops, and takes again."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from celery import signature
from django.db import DatabaseError, connections, transaction
from kombu.transport import memory

from celery_stargate import StoreUnavailable
from celery_stargate.contrib.django import closer, lanes, outbox
from celery_stargate.contrib.django.closer import Closer
from celery_stargate.contrib.django.closing import close_rows, close_signature
from celery_stargate.contrib.django.states import State
from celery_stargate.support.stop_event import StopEvent
from tests.django_project.world import FakeLanes

pytestmark = pytest.mark.usefixtures("using", "fake")


class Rig:
    """A queue of closing tasks, and a closer that ends when a test says so."""

    def __init__(self) -> None:
        self.stop = StopEvent()
        self.stargate = lanes.current_stargate()
        self.queue = f"close-{uuid.uuid4().hex}"

    def publish(self, outcome: dict[str, Any], task: str | None = None) -> None:
        """Publish a closing task, or another task with the same arguments."""
        close = dict(close_signature("default", self.queue))
        close["task"] = task or close["task"]
        signature(close, app=self.stargate.app).apply_async((outcome,))

    def run(self) -> None:
        """Run the closer until it is stopped."""
        thread = Closer(self.stargate, self.queue, self.stop)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()

    @property
    def left(self) -> int:
        """How many messages the broker still has, or has again."""
        with self.stargate.app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            return int(channel.queue_declare(self.queue, passive=True).message_count)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A rig; its broker keeps what was not acknowledged, as others do."""
    monkeypatch.setattr(memory.Channel, "do_restore", True)
    return Rig()


def write(*messages: str) -> list[outbox.Handle]:
    with transaction.atomic():
        return outbox.produce_many(messages)


def test_what_is_committed_when_it_is_stopped_is_acknowledged(
    rig: Rig, fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the commit that is under way: the tasks would come again for nothing."""
    (handle,) = write("one")
    waits_for_commit = threading.Event()
    acknowledge = closer._acknowledge

    def acknowledged(closing: Any) -> None:
        waits_for_commit.set()
        acknowledge(closing)

    def slowly(using: str, outcomes: Any) -> int:
        rig.stop.set()
        assert waits_for_commit.wait(20)
        return close_rows(using, outcomes)

    monkeypatch.setattr(closer, "_acknowledge", acknowledged)
    monkeypatch.setattr(closer, "close_rows", slowly)
    rig.publish(fake.receipt(handle.context))
    rig.run()
    assert (handle.state(), rig.left) == (State.STORED, 0)


def test_another_task_is_dropped(
    rig: Rig, fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with the arguments of a closing task."""
    (handle,) = write("one")

    def closed(using: str, outcomes: Any) -> int:
        rig.stop.set()
        return close_rows(using, outcomes)

    monkeypatch.setattr(closer, "close_rows", closed)
    rig.publish(fake.receipt(handle.context, "other"), task="shop.other")
    rig.publish(fake.receipt(handle.context, "CAE="))
    rig.run()
    assert (handle.row().message_id, rig.left) == ("CAE=", 0)


def test_a_batch_that_fails_leaves_no_connection_behind(
    rig: Rig, fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the connection that is broken: the batch comes again, and gets another one."""
    (handle,) = write("one")
    found: list[bool] = []

    def broken_at_first(using: str, outcomes: Any) -> int:
        found.append(connections[using].connection is not None)
        if len(found) == 1:
            connections[using].ensure_connection()
            raise DatabaseError("the server closed the connection")
        rig.stop.set()
        return close_rows(using, outcomes)

    monkeypatch.setattr(closer, "close_rows", broken_at_first)
    monkeypatch.setattr(closer, "_PAUSE", 0.01)
    rig.publish(fake.receipt(handle.context))
    rig.run()
    assert (handle.state(), rig.left) == (State.STORED, 0)
    assert found == [False, False]


def test_a_redis_that_is_away_holds_up_no_row(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fake: FakeLanes
) -> None:
    """It cannot be told that the task has started: the task comes again, and changes nothing."""
    (handle,) = write("one")

    def away(*_: Any) -> None:
        rig.stop.set()
        raise StoreUnavailable("Redis is away")

    monkeypatch.setattr(lanes, "note_started", away)
    rig.publish(fake.receipt(handle.context))
    rig.run()
    assert (handle.state(), rig.left) == (State.STORED, 0)
    assert "cannot tell that closing tasks have started: Redis is away" in caplog.text
