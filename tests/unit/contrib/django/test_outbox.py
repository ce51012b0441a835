"""`outbox.produce`: a row in the caller's transaction, handed over after the commit."""

from __future__ import annotations

import re
import subprocess
import sys
import unittest
import uuid
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from celery import chain, signature
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection, router, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase, override_settings

from celery_stargate import InvalidMessage, Message, StargateError
from celery_stargate.contrib.django import handover, lanes, outbox
from celery_stargate.contrib.django.closing import close_row
from celery_stargate.contrib.django.inbox import idempotent
from celery_stargate.contrib.django.models import OutboxMessage
from celery_stargate.contrib.django.relay import run_burst
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.contrib.django.states import State
from tests.django_project.world import TOPIC, FakeLanes

pytestmark = pytest.mark.usefixtures("using")


def rows() -> Any:
    return OutboxMessage.objects.order_by("pk")


def test_a_row_is_handed_over_after_the_commit(fake: FakeLanes) -> None:
    """Not before; then it is recorded, with its lane."""
    with transaction.atomic():
        handle = outbox.produce({"payload": "one", "key": "k", "properties": {"a": "b"}})
        assert handle.state() is State.PENDING
        assert not fake.sent
    (entry,) = fake.sent
    row = handle.row()
    assert (row.state, row.lane, row.topic) == (State.RECORDED, f"{TOPIC}#0", TOPIC)
    assert entry.context == handle.context == str(row.uuid)
    assert entry.message.key == "k" and entry.message.properties == {"a": "b"}


def test_the_row_says_the_same_message_again(fake: FakeLanes) -> None:
    """What the relay reads is what the caller gave, all fields."""
    given = {
        "payload": b"\x00\xff",
        "key": "k",
        "properties": {"a": "b"},
        "event_time": "2026-01-02T03:04:05+00:00",
        "deliver_after": 3.5,
        "replication_clusters": ["a", "b"],
    }
    with transaction.atomic():
        handle = outbox.produce(given)
    read = handle.row().to_message()
    assert read.to_frame_fields() == fake.sent[0].message.to_frame_fields()


def test_rolled_back_is_never_sent(fake: FakeLanes) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        handle = outbox.produce("one")
        raise ZeroDivisionError
    assert not fake.sent and not rows()
    with pytest.raises(StargateError, match="rolled back"):
        handle.row()


def make_savepoint() -> str:
    """Return a savepoint; a newer Django gave the function another name."""
    make: Any = getattr(transaction, "savepoint_create", None) or transaction.savepoint
    return str(make())


def test_what_a_savepoint_by_hand_rolled_back_is_not_sent(fake: FakeLanes) -> None:
    """Django runs its hooks all the same; the rows are gone."""
    with transaction.atomic():
        outbox.produce("one")
        savepoint = make_savepoint()
        outbox.produce_many(["two", ("k", "three")])
        transaction.savepoint_rollback(savepoint)
        outbox.produce("four")
    with transaction.atomic():
        savepoint = make_savepoint()
        outbox.produce("five")
        transaction.savepoint_rollback(savepoint)
    assert fake.payloads() == ["one", "four"]


@pytest.mark.parametrize("where", [{"a": "b\0"}, {"a\0": "b"}])
def test_a_property_with_a_nul_is_refused(fake: FakeLanes, where: dict[str, str]) -> None:
    """PostgreSQL stores none in JSON, and the error would end the caller's transaction."""
    with transaction.atomic(), pytest.raises(InvalidMessage, match="properties holds a NUL"):
        outbox.produce({"payload": "x", "properties": where})
    assert not rows()


def test_savepoints_are_honoured(fake: FakeLanes) -> None:
    """What is written in a savepoint that is rolled back is not sent; the rest is, in order."""
    with transaction.atomic():
        outbox.produce("one")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            outbox.produce("two")
            raise ZeroDivisionError
        with transaction.atomic():
            outbox.produce("three")
        outbox.produce("four")
        outbox.produce("five")
    assert fake.payloads() == ["one", "three", "four", "five"]
    # "four" and "five" went together.
    assert fake.puts == 3
    assert {row.state for row in rows()} == {State.RECORDED}


def test_outside_a_transaction_it_is_refused(fake: FakeLanes) -> None:
    with pytest.raises(TransactionManagementError, match="'default'"):
        outbox.produce("one")
    assert not rows()
    with override_settings(CELERY_STARGATE_OUTBOX_REQUIRE_TRANSACTION=False):
        assert outbox.produce("one").state() is State.RECORDED


def test_an_invalid_message_writes_nothing(fake: FakeLanes) -> None:
    """And in a list it says which it was."""
    with transaction.atomic():
        with pytest.raises(InvalidMessage, match="payload"):
            outbox.produce({"key": "k"})
        with pytest.raises(InvalidMessage) as caught:
            outbox.produce_many(["one", {"key": "k"}])
        with pytest.raises(InvalidMessage, match="key has 300"):
            outbox.produce(("k" * 300, "one"))
        with pytest.raises(InvalidMessage, match="not list"):
            outbox.produce(["one", "two"])
        with pytest.raises(InvalidMessage, match="produce"):
            outbox.produce_many("one")
        with pytest.raises(InvalidMessage, match="on_ack"):
            outbox.produce("one", on_ack="mark")
    assert caught.value.index == 1
    assert not rows()


def test_many_are_written_and_sent_in_order(fake: FakeLanes) -> None:
    with transaction.atomic():
        handles = outbox.produce_many([("k", f"{n}") for n in range(50)])
    assert fake.payloads() == [f"{n}" for n in range(50)]
    assert [each.context for each in fake.sent] == [each.context for each in handles]
    assert fake.puts == 1
    assert rows().filter(state=State.RECORDED).count() == 50


def test_a_key_with_an_earlier_row_that_waits_is_left_to_the_relay(fake: FakeLanes) -> None:
    """Else the later message would come first; other keys, and other topics' keys, go."""
    fake.away = True
    with transaction.atomic():
        outbox.produce(("a", "1"))
    fake.away = False
    handover._breaker.until = 0.0
    with transaction.atomic():
        late = outbox.produce(("a", "2"))
        outbox.produce(("b", "3"))
        outbox.produce(("a", "4"), topic="persistent://public/default/others")
        outbox.produce("5")
    assert fake.payloads() == ["3", "4", "5"]
    assert late.state() is State.PENDING


def test_a_redis_that_is_away_does_not_fail_the_caller(fake: FakeLanes) -> None:
    """The row waits for the relay, and the next callers do not wait for Redis."""
    fake.away = True
    with transaction.atomic():
        handle = outbox.produce("one")
    assert handle.state() is State.PENDING
    fake.away = False
    with transaction.atomic():
        later = outbox.produce("two")
    assert later.state() is State.PENDING and not fake.puts


def test_a_full_lane_leaves_the_row_to_the_relay(fake: FakeLanes) -> None:
    fake.full.add(TOPIC)
    with transaction.atomic():
        handle = outbox.produce("one")
    assert handle.state() is State.PENDING


def test_all_can_be_left_to_the_relay(fake: FakeLanes) -> None:
    with override_settings(CELERY_STARGATE_OUTBOX_SEND_ON_COMMIT=False), transaction.atomic():
        handle = outbox.produce("one")
    assert handle.state() is State.PENDING and not fake.sent


def test_a_callback_is_kept_with_its_row(fake: FakeLanes) -> None:
    """Ids in a canvas are decided now, for each message its own."""
    mark = signature("shop.mark", args=(7,))
    with transaction.atomic():
        outbox.produce_many(["one", "two"], on_ack=mark, on_error=chain(mark, mark))
    one, two = rows()
    assert '"shop.mark"' in one.on_ack and one.on_ack == two.on_ack
    assert '"task_id"' in one.on_error and one.on_error != two.on_error


def test_async_code_writes_too(fake: FakeLanes) -> None:
    async def view() -> tuple[State, list[State]]:
        one = await outbox.aproduce("one")
        more = await outbox.aproduce_many(["two", "three"])
        return await one.astate(), [await each.astate() for each in more]

    with override_settings(CELERY_STARGATE_OUTBOX_REQUIRE_TRANSACTION=False):
        assert async_to_sync(view)() == (State.RECORDED, [State.RECORDED, State.RECORDED])


def test_a_delivery_timeout_is_kept(fake: FakeLanes) -> None:
    with transaction.atomic():
        handle = outbox.produce("one", delivery_timeout=90)
        with pytest.raises(InvalidMessage, match="timeout"):
            outbox.produce("two", delivery_timeout=-1)
    assert fake.sent[0].timeout == 90.0 == handle.row().delivery_timeout


def test_produce_on_commit_returns_its_context_at_once(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And calls the produce task after the commit, under that id; never if rolled back."""
    from celery_stargate import ProduceTask

    calls: list[Any] = []
    monkeypatch.setattr(
        ProduceTask, "apply_async", lambda self, *args, **kwargs: calls.append((args, kwargs))
    )
    mark = signature("shop.mark")
    event = {"payload": "one", "key": "k"}
    with transaction.atomic():
        result = outbox.produce_on_commit(event, on_ack=mark)
        event["payload"] = "two"
        assert uuid.UUID(result.id) and not calls
    [((args, given), options)] = calls
    # It is what was checked, whatever became of it meanwhile.
    assert args == (Message("one", key="k"),)
    assert given["on_ack"]["task"] == "shop.mark"
    assert options == {"task_id": result.id}
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        outbox.produce_on_commit("two")
        raise ZeroDivisionError
    with pytest.raises(InvalidMessage):
        outbox.produce_on_commit({"key": "k"})
    with pytest.raises(InvalidMessage, match="a timeout must be more than 0"):
        outbox.produce_on_commit("three", delivery_timeout=-1)
    assert len(calls) == 1


def test_a_project_that_did_not_install_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told what to do, by the outbox and by the inbox."""

    def missing(label: str, name: str) -> None:
        raise LookupError(f"No installed app with label {label!r}.")

    monkeypatch.setattr(apps, "get_model", missing)
    with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS: add it"):
        outbox.produce("one")
    with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS: add it"):
        idempotent("shop")(lambda receipt: None)({"context": "c"})


def test_rows_are_closed_from_the_queue_of_their_database(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the caller's hand-over and by the relay's."""
    queues: list[Any] = []

    def record(stargate: Any, entries: Any, on_outcome: Any, **options: Any) -> Any:
        queues.append(on_outcome.options.get("queue"))
        return fake.record(stargate, entries, on_outcome, **options)

    monkeypatch.setattr(lanes, "record", record)
    with override_settings(CELERY_STARGATE_OUTBOX_CLOSE_QUEUE="closing"):
        with transaction.atomic():
            outbox.produce("one")
        with override_settings(CELERY_STARGATE_OUTBOX_SEND_ON_COMMIT=False), transaction.atomic():
            outbox.produce("two")
        assert run_burst("default") == 1
        settings = OutboxSettings.read()
    assert queues == ["closing", "closing"]
    assert settings.close_queue_of("orders_db") == "closing.orders_db"


def test_produce_on_commit_asks_the_router(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a row's database, that of its commit is the router's choice."""
    asked: list[str] = []
    monkeypatch.setattr(router, "db_for_write", lambda model: "orders")
    monkeypatch.setattr(transaction, "on_commit", lambda hook, using: asked.append(using))
    outbox.produce_on_commit("one")
    outbox.produce_on_commit("one", using="other")
    assert asked == ["orders", "other"]


def test_captured_callbacks_hand_over(fake: FakeLanes) -> None:
    """Django's TestCase never commits: its callbacks are captured, and may be run."""

    class Case(TestCase):
        def test(self) -> None:
            with self.captureOnCommitCallbacks(execute=True) as callbacks, transaction.atomic():
                handle = outbox.produce("one")
                outbox.produce("two")
            assert len(callbacks) == 2
            assert handle.state() is State.RECORDED

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert result.testsRun == 1 and result.wasSuccessful(), result.failures or result.errors
    assert fake.payloads() == ["one", "two"]


def test_captured_callbacks_are_those_of_their_own_rows(fake: FakeLanes) -> None:
    """Whatever was written before in the same transaction, and by hooks that have run."""

    class Case(TestCase):
        def test(self) -> None:
            outbox.produce("before")
            for text in ("one", "two"):
                with self.captureOnCommitCallbacks(execute=True) as callbacks:
                    handle = outbox.produce(text)
                assert len(callbacks) == 1
                assert handle.state() is State.RECORDED
            with self.captureOnCommitCallbacks(execute=True):
                outbox.produce("three")
                transaction.on_commit(lambda: outbox.produce("four"))

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    assert result.testsRun == 1 and result.wasSuccessful(), result.failures or result.errors
    assert fake.payloads() == ["one", "two", "three", "four"]


def test_many_calls_of_one_transaction_are_one_hand_over(fake: FakeLanes) -> None:
    with transaction.atomic():
        for number in range(50):
            outbox.produce(("k", str(number)))
    assert fake.payloads() == [str(number) for number in range(50)]
    assert fake.puts == 1


def test_a_receipt_closes_the_row_once(fake: FakeLanes) -> None:
    """With message id and times; a repeat changes nothing and calls nobody again."""
    with transaction.atomic():
        handle = outbox.produce("one", on_ack=signature("shop.mark", args=(7,)))
    receipt = fake.receipt(handle.context)
    assert close_row("default", receipt)
    row = handle.row()
    assert (row.state, row.message_id, row.code) == (State.STORED, "CAE=", "stored")
    assert row.created_at <= row.recorded_at <= row.closed_at
    assert not close_row("default", receipt)
    ((packed, outcome, task_id),) = fake.called
    assert "shop.mark" in packed and outcome == receipt and uuid.UUID(task_id)


@pytest.mark.parametrize("status", ["refused", "unknown"])
def test_a_failure_closes_the_row_with_its_reason(fake: FakeLanes, status: str) -> None:
    with transaction.atomic():
        handle = outbox.produce("one", on_error=signature("shop.fail"))
    assert close_row("default", fake.failure(handle.context, status))
    row = handle.row()
    assert (row.state, row.reason, row.message_id) == (status, "no such topic", "")
    assert len(fake.called) == 1


@pytest.mark.parametrize("reason", ["no \x00 topic", "no \ud800 topic"])
def test_a_reason_that_no_database_stores_closes_the_row(fake: FakeLanes, reason: str) -> None:
    with transaction.atomic():
        handle = outbox.produce("one")
    failure = {**fake.failure(handle.context), "reason": reason, "code": reason}
    assert close_row("default", failure)
    assert re.fullmatch("no . topic", handle.row().reason)
    assert handle.state() is State.REFUSED


def test_a_receipt_may_come_before_the_note_that_the_row_is_recorded(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note then changes nothing."""
    original = lanes.record

    def record(*args: Any, **options: Any) -> Any:
        recorded = original(*args, **options)
        close_row("default", fake.receipt(args[1][0].context))
        return recorded

    monkeypatch.setattr(lanes, "record", record)
    with transaction.atomic():
        handle = outbox.produce("one")
    assert handle.state() is State.STORED


def test_the_module_needs_no_configured_django() -> None:
    """It may be imported where settings are not there yet; the same holds for the tasks' users."""
    code = "from celery_stargate.contrib.django import outbox; print(outbox.produce.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "produce\n"), done.stderr


def test_a_hand_over_that_fails_is_logged(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By Django, and the caller goes on: the row is committed."""

    def broken(*_: object, **__: object) -> None:
        raise LookupError("it is broken")

    monkeypatch.setattr(lanes, "record", broken)
    with transaction.atomic():
        handle = outbox.produce("one")
    assert handle.state() is State.PENDING
    assert "it is broken" in caplog.text


def test_a_database_that_goes_away_after_the_commit_fails_no_caller(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The message is in its lane, and the row does not say so: the relay notes that."""

    def away(*_: object) -> int:
        raise DatabaseError("the database is away")

    with monkeypatch.context() as broken:
        broken.setattr(handover, "mark_recorded", away)
        with transaction.atomic():
            handle = outbox.produce("one")
    assert (handle.state(), fake.payloads()) == (State.PENDING, ["one"])
    assert "the relay will take 1 outbox rows: the database is away" in caplog.text
    assert run_burst("default") == 1
    assert (handle.state(), fake.payloads()) == (State.RECORDED, ["one"])


def test_a_database_that_tells_no_ids_after_a_bulk_insert(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MySQL: all is handed over and noted at the commit, in order for each key."""
    features = type(connection.features)
    monkeypatch.setattr(features, "can_return_rows_from_bulk_insert", False)
    fake.away = True
    with transaction.atomic():
        waits = outbox.produce(("a", "1"))
    fake.away = False
    handover._breaker.until = 0.0
    with transaction.atomic():
        handles = outbox.produce_many([("a", "2"), ("b", "3"), "4", ("b", "5")])
    assert fake.payloads() == ["3", "4", "5"]
    assert [each.state() for each in (waits, *handles)] == [
        *(State.PENDING, State.PENDING),
        *(State.RECORDED, State.RECORDED, State.RECORDED),
    ]


class _Elsewhere:
    """A router that keeps the outbox in a database of its own."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "postgres" if model._meta.label == "celery_stargate.OutboxMessage" else None


def test_a_router_says_which_database_must_have_the_transaction(fake: FakeLanes) -> None:
    """A transaction in another database is none: the error names the right one, and `using=` goes
    before the router."""
    with override_settings(DATABASE_ROUTERS=[_Elsewhere()]), transaction.atomic():
        with pytest.raises(TransactionManagementError, match="using='postgres'"):
            outbox.produce("a")
        handle = outbox.produce("a", using="default")
    assert handle.using == "default" and handle.state() is State.RECORDED
