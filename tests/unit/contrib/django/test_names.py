"""Contexts of rows, topics' short names, options of commands: what the outbox reads and writes."""

from __future__ import annotations

import argparse
import io
import threading
import uuid
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Retry
from django.core.management import call_command
from django.db import transaction
from django.test import override_settings

from celery_stargate import ConfigurationError, InvalidMessage
from celery_stargate.contrib.django import lanes, tasks
from celery_stargate.contrib.django.contexts import (
    by_topic,
    callback_task_id,
    context_of,
    parse_context,
)
from celery_stargate.contrib.django.inbox import _find_id
from celery_stargate.contrib.django.management.arguments import duration, positive
from celery_stargate.contrib.django.management.commands import stargate_outbox_relay as command
from celery_stargate.contrib.django.models import OutboxMessage
from celery_stargate.contrib.django.outbox import produce
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.contrib.django.topics import topic_names
from celery_stargate.contrib.django.wake import Listen
from celery_stargate.support.stop_event import StopEvent
from tests.django_project.world import TOPIC, FakeLanes, make_stargate

ROW = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize("attempt", [1, 2, 17])
def test_the_context_of_an_attempt(attempt: int) -> None:
    """Names its row and its number, and its callbacks have ids of their own that stay."""
    context = context_of(ROW, attempt)
    assert parse_context(context) == (ROW, attempt)
    ids = {callback_task_id(context, option) for option in ("on_ack", "on_error")}
    assert ids == {callback_task_id(context, option) for option in ("on_ack", "on_error")}
    assert len(ids) == 2


@pytest.mark.parametrize("context", ["", "no uuid", f"{ROW}.1", f"{ROW}.02", f"{ROW}.x", f"{ROW}."])
def test_what_is_no_context_of_a_row(context: str) -> None:
    """Is an error: it is another call's."""
    with pytest.raises(ValueError):
        parse_context(context)


def test_contexts_by_topic() -> None:
    """In their order."""
    given = [("a", ROW, 1), ("b", ROW, 2), ("a", ROW, 3)]
    assert by_topic(given) == {"a": [str(ROW), f"{ROW}.3"], "b": [f"{ROW}.2"]}
    assert by_topic([]) == {}


@pytest.mark.parametrize(
    ("conf", "names"),
    [
        ({}, {TOPIC: "orders"}),
        ({"stargate_topics": {"o": TOPIC}}, {TOPIC: "o"}),
        ({"stargate_topic": None, "stargate_topics": {"o": TOPIC}}, {TOPIC: "o"}),
    ],
)
def test_short_names_of_topics(
    monkeypatch: pytest.MonkeyPatch, conf: dict[str, Any], names: dict[str, str]
) -> None:
    """Those of the settings; without a Stargate there are none."""
    stargate = make_stargate()
    stargate.app.conf.update(conf)
    monkeypatch.setattr(lanes, "current_stargate", lambda: stargate)
    assert topic_names() == names

    def none() -> Any:
        raise ConfigurationError("no app has a Stargate")

    monkeypatch.setattr(lanes, "current_stargate", none)
    assert topic_names() == {}


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "2147483648", "9" * 400])
def test_what_is_no_number_above_0(text: str) -> None:
    """Is told with what was given."""
    assert positive("7") == 7
    with pytest.raises(argparse.ArgumentTypeError, match="no whole number above 0"):
        positive(text)
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)


@pytest.mark.parametrize("eager", [True, False])
def test_a_close_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch, eager: bool) -> None:
    """In a worker; in eager mode Celery would do so at once, and for ever."""
    error = OSError("the database is away")
    task = tasks.close
    task.push_request(is_eager=eager, called_directly=False, id="t", retries=0)
    monkeypatch.setattr("celery.app.task.Task.retry", _retry)
    try:
        with pytest.raises(OSError if eager else Retry):
            task.retry(exc=error)
    finally:
        task.pop_request()


def _retry(self: Any, *args: Any, **options: Any) -> Any:
    raise Retry("again")


@pytest.mark.usefixtures("using")
@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"payload": "x", "key": "k" * 256}, "the key has 256 characters"),
        ({"payload": "x", "key": "a\x00b"}, "NUL"),
    ],
)
def test_a_key_that_the_table_cannot_hold(fake: FakeLanes, message: Any, words: str) -> None:
    """Is told before the commit, and nothing is written."""
    with pytest.raises(InvalidMessage, match=words), transaction.atomic():
        produce(message)
    assert not OutboxMessage.objects.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCH_SIZE", 0),
        ("BATCH_SIZE", True),
        ("BATCH_SIZE", "5"),
        ("SEND_ON_COMMIT", 1),
        ("CLOSE_QUEUE", 5),
    ],
)
def test_settings_of_a_wrong_type(name: str, value: Any) -> None:
    """Are told by their names, with what was found."""
    with (
        override_settings(**{f"CELERY_STARGATE_OUTBOX_{name}": value}),
        pytest.raises(ConfigurationError, match=name),
    ):
        OutboxSettings.read()


@pytest.mark.parametrize("remember", [timedelta(hours=1), 3600, 3600.0])
def test_settings_that_are_set(remember: Any) -> None:
    """Seconds may be a timedelta; a whole number is one."""
    with override_settings(
        CELERY_STARGATE_OUTBOX_REMEMBER=remember, CELERY_STARGATE_OUTBOX_BATCH_SIZE=7
    ):
        found = OutboxSettings.read()
    assert (found.remember, found.batch_size) == (3600.0, 7)


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (({"message_id": "m"},), "m"),
        (("task", [{"context": "c"}, {"context": "d"}]), "c"),
        (({"context": 5, "message_id": "m"},), "m"),
        (({"other": 1}, {"context": "c"}), "c"),
    ],
)
def test_the_id_of_an_effect(args: tuple[Any, ...], found: str) -> None:
    """Is the context, or the message's id, of the first outcome that has one."""
    assert _find_id(args) == found


def test_a_relay_that_is_to_end_waits_for_nothing() -> None:
    """No connection is made for it."""
    stop = StopEvent()
    stop.set()
    waker: Any = Listen("default", stop)
    waker.wait(60.0)
    assert waker._connection is None


@pytest.mark.parametrize(
    ("queue", "database", "consumed"),
    [
        ("closing", "default", "closing"),
        ("closing", "orders_db", "closing.orders_db"),
        (None, "orders_db", None),
    ],
)
def test_the_relay_process_closes_rows_where_they_have_a_queue(
    fake: FakeLanes,
    monkeypatch: pytest.MonkeyPatch,
    queue: str | None,
    database: str,
    consumed: str | None,
) -> None:
    """Those of its database. Also in a thread of another program, whose signals are its own."""
    steps: list[str] = []

    class Closer:
        def __init__(self, stargate: Any, name: str, stop: StopEvent) -> None:
            steps.append(name)

        def start(self) -> None:
            steps.append("start")

        def join(self, timeout: float) -> None:
            steps.append("join")

    def relay(database: str, stop: StopEvent, settings: OutboxSettings) -> Any:
        def run(*, burst: bool, on_pass: Any) -> int:
            steps.append("run")
            on_pass()
            return 3

        return SimpleNamespace(leases=SimpleNamespace(name="r"), run=run)

    monkeypatch.setattr(command, "Closer", Closer)
    monkeypatch.setattr(command, "make_relay", relay)
    monkeypatch.setattr(command, "current_stargate", make_stargate)
    said = io.StringIO()

    def work() -> None:
        with override_settings(CELERY_STARGATE_OUTBOX_CLOSE_QUEUE=queue):
            call_command("stargate_outbox_relay", database=database, stdout=said)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert "handed over 3 rows" in said.getvalue()
    assert steps == ([consumed, "start", "run", "join"] if queue else ["run"])


@pytest.mark.usefixtures("using")
def test_an_empty_outbox_has_no_oldest_row(fake: FakeLanes) -> None:
    """Its counts are told all the same."""
    said = io.StringIO()
    call_command("stargate_outbox_stats", stdout=said)
    assert "oldest" not in said.getvalue()
    assert "relays: 0" in said.getvalue()
