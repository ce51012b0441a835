"""The outbox in eager mode: a commit publishes, closes the row and runs its callback."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.test import TestCase

from celery_stargate import ProduceError, Stargate
from celery_stargate.contrib.django import lanes, outbox
from celery_stargate.contrib.django import tasks as outbox_tasks
from celery_stargate.contrib.django.models import OutboxMessage
from celery_stargate.contrib.django.operations import discard, requeue
from celery_stargate.contrib.django.relay import run_burst
from celery_stargate.contrib.django.states import State
from celery_stargate.testing import MemoryPulsar, in_memory
from tests.django_project.world import TOPIC, make_stargate

pytestmark = pytest.mark.usefixtures("using")


@pytest.fixture
def stargate(monkeypatch: pytest.MonkeyPatch) -> Stargate:
    """The current app's, with the outbox's tasks."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.django_project.settings")
    made = make_stargate()
    monkeypatch.setattr(lanes, "current_stargate", lambda: made)
    assert outbox_tasks.close.name in made.app.tasks
    return made


@pytest.fixture
def pulsar(stargate: Stargate) -> Iterator[MemoryPulsar]:
    """Its topics."""
    with in_memory(stargate.app) as found:
        yield found


def _callback(stargate: Stargate, seen: list[Any]) -> Any:
    def call_back(outcome: Any) -> None:
        seen.append(outcome)

    register: Any = stargate.app.task
    return register(name="shop.call_back", shared=False)(call_back).s()


def _passes(case: type[TestCase]) -> None:
    result = unittest.TextTestRunner().run(unittest.TestSuite([case("test_commit")]))
    assert result.wasSuccessful(), result.failures + result.errors


def test_a_commit_publishes(stargate: Stargate, pulsar: MemoryPulsar) -> None:
    """And the row is closed, and its callback has run, when it returns."""
    seen: list[Any] = []
    with transaction.atomic():
        handle = outbox.produce(("k", "lamp"), on_ack=_callback(stargate, seen))
        pulsar.assert_produced(TOPIC, count=0)
    pulsar.assert_produced(TOPIC, payload="lamp", key="k", count=1)
    row = handle.row()
    assert (row.state, row.message_id) == (State.STORED, seen[0]["message_id"])
    assert seen[0]["context"] == handle.context


def test_a_rollback_publishes_nothing(pulsar: MemoryPulsar) -> None:
    """As in production."""
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        outbox.produce("lamp")
        raise ZeroDivisionError
    pulsar.assert_produced(TOPIC, count=0)


def test_receipts_may_be_late(stargate: Stargate, pulsar: MemoryPulsar) -> None:
    """Until then the row is recorded."""
    seen: list[Any] = []
    pulsar.receipts.hold()
    with transaction.atomic():
        handle = outbox.produce("lamp", on_ack=_callback(stargate, seen))
    assert (handle.state(), seen) == (State.RECORDED, [])
    pulsar.receipts.release()
    assert (handle.state(), len(seen)) == (State.STORED, 1)


def test_a_refused_message(stargate: Stargate, pulsar: MemoryPulsar) -> None:
    """Closes its row as refused, and calls ``on_error``; a later one of that key waits."""
    seen: list[Any] = []
    pulsar.receipts.fail_next()
    with transaction.atomic():
        handle = outbox.produce("lamp", on_error=_callback(stargate, seen))
    row = handle.row()
    assert (row.state, row.code) == (State.REFUSED, "send-error:8")
    assert [each["status"] for each in seen] == ["refused"]


def test_a_requeued_message_goes_by_the_relay(pulsar: MemoryPulsar) -> None:
    """Until nothing is left; it asks no Redis for those whose receipts are late."""
    pulsar.receipts.fail_next()
    with transaction.atomic():
        refused = outbox.produce("lamp")
    pulsar.receipts.hold()
    with transaction.atomic():
        late = outbox.produce("chair")
    OutboxMessage.objects.update(recorded_at="2020-01-01T00:00:00Z")
    assert requeue(OutboxMessage.objects.filter(uuid=refused.uuid)) == 1
    run_burst("default")
    pulsar.assert_produced(TOPIC, payload="lamp", count=1)
    pulsar.receipts.release()
    assert (refused.state(), late.state()) == (State.STORED, State.STORED)


def test_a_refused_message_is_discarded_without_redis(
    pulsar: MemoryPulsar, caplog: pytest.LogCaptureFixture
) -> None:
    """There are no dead letters in eager mode, and no Redis to look for them."""
    pulsar.receipts.fail_next()
    with transaction.atomic():
        handle = outbox.produce("lamp")
    assert discard(OutboxMessage.objects.all()) == 1
    assert handle.state() is State.DISCARDED
    assert "dead letters" not in caplog.text


@pytest.mark.parametrize("error", [ProduceError({"reason": "it is broken"}), DatabaseError("x")])
def test_an_error_of_a_callback_is_raised(
    stargate: Stargate, pulsar: MemoryPulsar, error: Exception
) -> None:
    """Once, out of the commit, as eager mode does it."""
    calls: list[Any] = []

    def broken(outcome: Any) -> None:
        calls.append(outcome)
        raise error

    register: Any = stargate.app.task
    on_ack = register(name="shop.broken", shared=False)(broken).s()

    class Orders(TestCase):
        def test_commit(self) -> None:
            with pytest.raises(type(error)), self.captureOnCommitCallbacks(execute=True):
                outbox.produce("lamp", on_ack=on_ack)

    _passes(Orders)
    assert len(calls) == 1


def test_in_a_test_case(pulsar: MemoryPulsar) -> None:
    """Within the transaction of a Django test."""

    class Orders(TestCase):
        def test_commit(self) -> None:
            with self.captureOnCommitCallbacks(execute=True):
                handle = outbox.produce("lamp")
            assert handle.state() is State.STORED

    _passes(Orders)
    pulsar.assert_produced(TOPIC, payload="lamp", count=1)


@pytest.mark.parametrize("many", [False, True], ids=["aproduce", "aproduce_many"])
def test_a_callback_of_async_code_uses_the_database(
    stargate: Stargate, pulsar: MemoryPulsar, many: bool
) -> None:
    """Django allows that in no event loop's thread; it sees the rows of the test's transaction."""
    seen: list[int] = []

    def count(receipt: Any) -> None:
        seen.append(OutboxMessage.objects.count())

    register: Any = stargate.app.task
    on_ack = register(name="shop.count", shared=False)(count).s()

    class Orders(TestCase):
        async def test_commit(self) -> None:
            await outbox.aproduce("lamp")
            if many:
                await stargate.aproduce_many(["lamp"], on_ack=on_ack)
            else:
                await stargate.aproduce("lamp", on_ack=on_ack)

    _passes(Orders)
    assert seen == [1]


def test_topics_of_a_test(stargate: Stargate) -> None:
    """The settings that a test changes are those that its messages get."""
    for topic in ("first", "second"):
        with in_memory(stargate.app, stargate_topic=topic) as pulsar:
            with transaction.atomic():
                outbox.produce("lamp")
            pulsar.assert_produced(topic, count=1)
