"""The relay on SQLite and PostgreSQL, over lanes in Redis: killed, doubled, late, woken."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from django.db import connections, transaction
from django.db.utils import Error as DatabaseError

from celery_stargate.contrib.django import outbox
from celery_stargate.contrib.django.models import OutboxShard
from celery_stargate.contrib.django.relay import Relay, make_relay, run_burst
from celery_stargate.contrib.django.settings import OutboxSettings
from celery_stargate.contrib.django.wake import Listen, Poll
from celery_stargate.support.stop_event import StopEvent
from tests.django_project.rig import LEASE, STEPS, OutboxRig
from tests.django_project.setup import empty, migrate, use_postgres
from tests.integration.rig import wait_for
from tests.servers.fixtures import ServerAddress
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

on_postgres = pytest.mark.parametrize("using", ["postgres"], indirect=True)


def ordered(rig: OutboxRig) -> None:
    """Each row's message stands in the lane once, and each key's in the order of the ids."""
    rows = list(rig.rows.values_list("uuid", "key"))
    lane = [context for context, _ in rig.in_lane()]
    assert sorted(lane) == sorted(str(row_id) for row_id, _ in rows)
    place = {context: n for n, context in enumerate(lane)}
    for key in {key for _, key in rows}:
        places = [place[str(row_id)] for row_id, of in rows if of == key]
        assert places == sorted(places), key


@pytest.mark.parametrize("step", STEPS)
def test_a_relay_killed_at_any_step_loses_and_repeats_nothing(rig: OutboxRig, step: str) -> None:
    """The next one waits for the lease, and goes on."""
    for start in (0, 30):
        rig.write(*[(f"k{n % 7}", f"{n}") for n in range(start, start + 30)], late=True)
    code, output = rig.run("tests.django_project.dying_relay", step, rig.using, batch_size=40)
    assert code == -signal.SIGKILL, output
    settings = replace(OutboxSettings.read(), batch_size=40, lease=LEASE)
    stop = StopEvent()
    relay = Relay(rig.using, stop, settings)

    def look() -> None:
        if rig.states() == {"recorded"}:
            stop.set()

    relay.run(on_pass=look)
    ordered(rig)


def test_two_relays_keep_the_order(rig: OutboxRig) -> None:
    """Two processes, while rows are being written; one is killed on the way."""
    relays = [rig.relay("--batch-size", "20") for _ in range(2)]
    try:
        for start in range(0, 400, 8):
            rig.write(
                *[(f"k{n % 5}", f"{n}") for n in range(start, start + 8)], late=start % 16 == 0
            )
            if start == 200:
                relays[0].kill()
        wait_for(lambda: rig.states() == {"recorded"})
        relays[1].terminate()
        assert relays[1].wait(20) == 0
    finally:
        for each in relays:
            each.kill()
            each.communicate()
    ordered(rig)


@on_postgres
def test_a_transaction_held_open_across_others_commits(rig: OutboxRig) -> None:
    """Its row has the lowest id and becomes visible last: it is sent last, and is sent."""
    written, release = threading.Event(), threading.Event()

    def slow() -> None:
        with transaction.atomic(using=rig.using):
            outbox.produce("slow", using=rig.using)
            written.set()
            assert release.wait(30)
        connections[rig.using].close()

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        assert written.wait(30)
        rig.write("late", late=True)
        assert run_burst(rig.using) == 1
        rig.write("direct")
    finally:
        release.set()
        thread.join(30)
    run_burst(rig.using)
    assert rig.payloads() == ["late", "direct", "slow"]
    assert rig.rows.first().to_message().payload == b"slow"
    assert rig.states() == {"recorded"}


@on_postgres
def test_a_dead_caller_with_an_open_transaction_is_skipped_until_it_commits(rig: OutboxRig) -> None:
    """The same where the relay alone hands over, with the same key: nothing is lost or swapped."""
    other = connections[rig.using].copy()
    try:
        rig.write(("k", "first"), late=True)
        row = rig.rows.first()
        rig.rows.all().delete()
        fields = [field.column for field in row._meta.concrete_fields]
        values = [
            field.get_db_prep_save(getattr(row, field.attname), other)
            for field in row._meta.concrete_fields
        ]
        other.set_autocommit(False)
        with other.cursor() as cursor:
            marks, names = ", ".join(["%s"] * len(fields)), ", ".join(f'"{f}"' for f in fields)
            table = row._meta.db_table
            cursor.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)
        rig.write(("k", "second"), late=True)
        assert run_burst(rig.using) == 1
        other.commit()
        assert run_burst(rig.using) == 1
    finally:
        other.close()
    assert rig.payloads() == ["second", "first"]


@on_postgres
def test_notify_wakes_the_relay(rig: OutboxRig) -> None:
    """With a poll of a minute the row goes at once: also that of a caller who left it."""
    stop = StopEvent()
    settings = replace(OutboxSettings.read(), poll_interval=60.0)
    relay = make_relay(rig.using, stop, settings)
    wake = relay._wake
    assert isinstance(wake, Listen)

    def run() -> None:
        relay.run()
        connections[rig.using].close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_for(lambda: wake._connection is not None)
        for n in range(3):
            began = time.monotonic()
            rig.write(f"{n}", late=True)
            wait_for(lambda: rig.states() == {"recorded"}, 10.0)
            assert time.monotonic() - began < 10.0
    finally:
        stop.set()
        with suppress(DatabaseError):
            rig.write("wake up", late=True)
        thread.join(70)
    assert not thread.is_alive()


@on_postgres
def test_a_lost_listen_connection_leaves_the_poll(rig: OutboxRig) -> None:
    """As behind PgBouncer: the poll beneath takes the row, and LISTEN is tried again."""
    stop = StopEvent()
    listen = Listen(rig.using, stop)
    listen.wait(0.1)
    first = listen._connection
    assert first is not None
    with connections[rig.using].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [first.connection.info.backend_pid])
    listen.wait(0.1)
    listen.wait(0.1)
    assert listen._connection is not None and listen._connection is not first
    listen.close()


def test_without_notify_the_relay_polls(using: str, rig: OutboxRig) -> None:
    relay = make_relay(using, StopEvent(), OutboxSettings.read())
    assert isinstance(relay._wake, Poll if using == "default" else Listen)
    relay._wake.close()


def test_the_relay_command_stops_cleanly(rig: OutboxRig, tmp_path: Path) -> None:
    """SIGTERM: it frees its shards, and says how many rows it handed over."""
    alive = tmp_path / "alive"
    process = rig.relay("--liveness-file", str(alive))
    try:
        wait_for(alive.exists)
        rig.write("one", late=True)
        wait_for(lambda: rig.states() == {"recorded"})
        process.terminate()
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and "handed over 1 rows" in output
    assert not OutboxShard.objects.using(rig.using).exclude(owner="").exists()


def test_a_redis_that_was_away_gets_the_rows(using: str, tmp_path: Path) -> None:
    """The relay waits, and goes on when Redis is there. Its file says meanwhile that it lives."""
    alive = tmp_path / "alive"
    with (
        RedisServer(tmp_path / "redis", appendonly=True) as server,
        OutboxRig(using, server.url) as rig,
    ):
        process = rig.relay("--liveness-file", str(alive))
        try:
            wait_for(alive.exists)
            server.stop()
            with pytest.MonkeyPatch.context() as patch:
                from celery_stargate.contrib.django import lanes

                patch.setattr(lanes, "current_stargate", lambda: rig.stargate)
                rig.write("one", "two")
            assert rig.states() == {"pending"}
            # Once for a pass that had begun; then only passes that fail are left.
            for _ in range(2):
                alive.unlink()
                wait_for(alive.exists)
            assert rig.states() == {"pending"}
            server.start()
            wait_for(lambda: rig.states() == {"recorded"})
            assert rig.payloads() == ["one", "two"]
        finally:
            process.kill()
            process.communicate()


def test_a_database_that_was_away_is_read_again(
    redis_server: ServerAddress, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay outlives a restart of PostgreSQL: nothing is lost or repeated."""
    from celery_stargate.contrib.django import lanes

    migrate("postgres")
    empty("postgres")
    with OutboxRig("postgres", redis_server.url) as rig:
        monkeypatch.setattr(lanes, "current_stargate", lambda: rig.stargate)
        process = rig.relay()
        try:
            rig.write("one", late=True)
            wait_for(lambda: rig.states() == {"recorded"})
            connections["postgres"].close()
            postgres.kill()
            postgres.start()
            use_postgres(postgres.django)
            migrate("postgres")
            rig.write("two", late=True)
            wait_for(lambda: rig.states() == {"recorded"})
            assert process.poll() is None
            assert rig.payloads() == ["one", "two"]
        finally:
            process.kill()
            process.communicate()
    empty("postgres")
