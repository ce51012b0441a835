"""The management commands and the beat tasks."""

from __future__ import annotations

import io
import json
import signal
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, router, transaction
from django.test import override_settings
from django.utils import timezone

from celery_stargate.contrib.django import operations, outbox, tasks
from celery_stargate.contrib.django.closing import close_row
from celery_stargate.contrib.django.management.commands import (
    stargate_outbox_requeue,
    stargate_outbox_stats,
)
from celery_stargate.contrib.django.models import InboxClaim, OutboxMessage
from celery_stargate.contrib.django.operations import replay
from celery_stargate.contrib.django.states import State
from tests.django_project.world import TOPIC, FakeLanes

pytestmark = pytest.mark.usefixtures("using")


def run(name: str, *arguments: str) -> str:
    said = io.StringIO()
    call_command(f"stargate_outbox_{name}", *arguments, stdout=said)
    return said.getvalue()


def write(*messages: Any, **options: Any) -> list[outbox.Handle]:
    with transaction.atomic():
        return outbox.produce_many(messages, **options)


def aged(days: float) -> None:
    OutboxMessage.objects.update(closed_at=timezone.now() - timedelta(days=days))


def test_the_relay_in_a_burst(fake: FakeLanes, tmp_path: Any) -> None:
    with override_settings(CELERY_STARGATE_OUTBOX_SEND_ON_COMMIT=False):
        write(*"abcde")
    alive = tmp_path / "alive"
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    said = run("relay", "--burst", "--batch-size", "2", "--liveness-file", str(alive))
    assert "handed over 5 rows" in said and alive.exists()
    assert fake.puts == 3
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_beat_does_the_same(fake: FakeLanes) -> None:
    with override_settings(CELERY_STARGATE_OUTBOX_SEND_ON_COMMIT=False):
        write(*"abc")
    assert tasks.relay.apply().result == 3


def test_stats(fake: FakeLanes) -> None:
    one, two, _ = write(*"abc")
    close_row("default", fake.receipt(one.context))
    close_row("default", fake.failure(two.context))
    with override_settings(CELERY_STARGATE_OUTBOX_SEND_ON_COMMIT=False):
        write("d")
    OutboxMessage.objects.filter(state=State.PENDING).update(
        created_at=timezone.now() - timedelta(seconds=90)
    )
    stats = json.loads(run("stats", "--json"))
    assert stats["states"] == {
        "pending": 1,
        "recorded": 1,
        "stored": 1,
        "refused": 1,
        "unknown": 0,
        "discarded": 0,
    }
    assert (stats["failed"], stats["relays"], stats["database"]) == (1, 0, "default")
    assert 90 <= stats["oldest_pending_seconds"] < 120
    assert "oldest pending: 9" in run("stats")


def test_requeue_chooses(fake: FakeLanes) -> None:
    """By context, state, topic, key and number; a dry run changes nothing."""
    handles = write(("a", "1"), ("b", "2"), ("a", "3"), "4", "5")
    for handle in handles[:4]:
        close_row("default", fake.failure(handle.context))
    close_row("default", fake.receipt(handles[4].context))
    assert "4 rows would be" in run("requeue", "--dry-run")
    assert "2 rows would be" in run("requeue", "--dry-run", "--key", "a")
    assert "1 rows would be" in run("requeue", "--dry-run", "--key", "a", "--limit", "1")
    assert "0 rows would be" in run("requeue", "--dry-run", "--state", "unknown")
    assert "4 rows would be" in run("requeue", "--dry-run", "--topic", TOPIC)
    assert "0 rows would be" in run("requeue", "--dry-run", "--topic", f"{TOPIC}-others")
    OutboxMessage.objects.filter(uuid=handles[0].uuid).update(
        closed_at=timezone.now() - timedelta(hours=3)
    )
    assert "1 rows would be" in run("requeue", "--dry-run", "--older-than", "2h")
    assert "requeued 1 rows" in run("requeue", handles[1].context)
    assert handles[1].row().context == f"{handles[1].uuid}.2"
    assert "requeued 3 rows" in run("requeue")
    assert "requeued 0 rows" in run("requeue")
    for wrong in ("nonsense", f"{handles[0].uuid}.x", f"{handles[0].uuid}.02", "9" * 400):
        with pytest.raises(CommandError, match=f"'{wrong[:90]}.*not the context .*; give its UUID"):
            run("requeue", handles[0].context, wrong)
    with pytest.raises(CommandError, match="topic"):
        run("requeue", "--topic", "persistent://nothing")


def test_requeue_of_many_contexts(fake: FakeLanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """In queries of a bounded size. An attempt that is over is not meant; the oldest go first."""
    handles = write(*"abcdef")
    for handle in handles:
        close_row("default", fake.failure(handle.context))
    assert "requeued 1 rows" in run("requeue", handles[0].context)
    close_row("default", fake.failure(handles[0].row().context))
    contexts = [handle.context for handle in handles]
    others = [str(uuid.uuid4()) for _ in range(1100)]
    assert "5 rows would be" in run("requeue", *others, *contexts, "--dry-run")
    monkeypatch.setattr(stargate_outbox_requeue, "_CHUNK", 2)
    assert "requeued 3 rows" in run("requeue", *reversed(contexts), "--limit", "3")
    assert [handle.row().attempt for handle in handles] == [2, 2, 2, 2, 1, 1]
    assert "requeued 3 rows" in run("requeue", "--limit", "3")
    assert [handle.row().state for handle in handles].count(State.PENDING) == 6


def test_no_command_reads_by_a_cursor_of_the_server(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PgBouncer's transaction pooling loses it: the next rows are asked of another connection."""

    def chunked_cursor() -> Any:
        raise AssertionError("a cursor of the server")

    monkeypatch.setattr(connection, "chunked_cursor", chunked_cursor)
    monkeypatch.setattr(operations, "_READ_SIZE", 2)
    handles = write(*"abcde")
    for handle in handles:
        close_row("default", fake.failure(handle.context))
    assert "requeued 5 rows" in run("requeue")
    assert [handle.row().attempt for handle in handles] == [2] * 5
    assert "handed over 5 rows" in run("relay", "--burst")
    assert "0 outbox rows were" in run("cleanup")
    assert '"recorded": 5' in run("stats", "--json")


def test_clean_up_deletes_what_is_done(fake: FakeLanes) -> None:
    """Open and failed rows stay, however old."""
    stored, failed, _ = write("a", "b", "c")
    (other,) = write("d", topic=f"{TOPIC}-others")
    close_row("default", fake.receipt(stored.context))
    close_row("default", fake.receipt(other.context))
    close_row("default", fake.failure(failed.context))
    aged(8)
    assert "2 outbox rows would be" in run("cleanup", "--dry-run")
    assert "0 outbox rows would be" in run("cleanup", "--dry-run", "--older-than", "2w")
    assert "1 outbox rows were" in run("cleanup", "--topic", f"{TOPIC}-others")
    assert tasks.cleanup.apply(kwargs={"topic": f"{TOPIC}-others"}).result == 0
    assert tasks.cleanup.apply().result == 1
    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {"recorded", "refused"}
    for wrong in ("7", "d", "7y"):
        with pytest.raises(CommandError, match="duration"):
            run("cleanup", "--older-than", wrong)
    for option in ("--older-than", "--inbox-older-than"):
        with pytest.raises(CommandError, match="'999999w' is too long; a duration is at most"):
            run("cleanup", option, "999999w")
    with pytest.raises(CommandError, match="'999999w' is too long"):
        run("requeue", "--older-than", "999999w")


@pytest.mark.parametrize("wrong", [-1, 0, "7d", 1e12, True, float("nan")])
@pytest.mark.parametrize("name", ["older_than", "inbox_older_than"])
def test_clean_up_by_beat_with_a_wrong_age(fake: FakeLanes, name: str, wrong: object) -> None:
    """It is named, and nothing is deleted."""
    (stored,) = write("a")
    close_row("default", fake.receipt(stored.context))
    aged(8)
    with pytest.raises(ValueError, match=f"{name} must be seconds, above 0 and at most"):
        tasks.cleanup.apply(kwargs={name: wrong}, throw=True)
    assert OutboxMessage.objects.count() == 1


def test_clean_up_of_the_inbox(fake: FakeLanes) -> None:
    InboxClaim.objects.create(
        digest="b", name="a", message="b", claimed_at=timezone.now() - timedelta(days=3)
    )
    InboxClaim.objects.create(digest="c", name="a", message="c")
    assert "1 inbox claims would be" in run("cleanup", "--inbox-older-than", "2d", "--dry-run")
    assert tasks.cleanup.apply(kwargs={"inbox_older_than": 4 * 86400.0}).result == 0
    assert "1 inbox claims were" in run("cleanup", "--inbox-older-than", "2d")
    InboxClaim.objects.create(
        digest="d", name="a", message="d", claimed_at=timezone.now() - timedelta(days=3)
    )
    assert tasks.cleanup.apply(kwargs={"inbox_older_than": 2 * 86400.0}).result == 1
    assert InboxClaim.objects.get().message == "c"


def test_a_replay_gives_a_stored_row_a_new_attempt(fake: FakeLanes) -> None:
    (handle,) = write("a")
    assert replay(OutboxMessage.objects.all()) == 0
    close_row("default", fake.receipt(handle.context))
    assert replay(OutboxMessage.objects.all()) == 1
    row = handle.row()
    assert (row.state, row.attempt, row.message_id) == (State.PENDING, 2, "")
    assert row.history[0]["message_id"] == "CAE="


def test_a_database_that_is_not_there() -> None:
    with pytest.raises(CommandError, match="nowhere"):
        run("stats", "--database", "nowhere")


def test_the_database_that_the_router_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands and tasks go where `outbox.produce` writes, if nobody names another."""
    asked: list[str] = []

    def ask(using: str, *_: Any, **__: Any) -> int:
        asked.append(using)
        return 0

    monkeypatch.setattr(router, "db_for_write", lambda model: "postgres")
    for module, name in (
        (tasks, "run_burst"),
        (tasks, "clean_up"),
        (stargate_outbox_stats, "outbox_stats"),
    ):
        monkeypatch.setattr(module, name, ask)
    tasks.relay.apply()
    tasks.cleanup.apply()
    run("stats", "--json")
    assert asked == ["postgres", "postgres", "postgres"]


def test_the_closing_task_closes(fake: FakeLanes) -> None:
    """As a receipt triggers it; a repeat does nothing."""
    (handle,) = write("a")
    receipt = fake.receipt(handle.context)
    assert tasks.close.apply((receipt,), {"using": "default"}).result is True
    assert tasks.close.apply((receipt,), {"using": "default"}).result is False
    assert handle.state() is State.STORED
