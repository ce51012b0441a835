"""System checks: each finds what it is for, and a sound project has no finding."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.test import override_settings

from celery_stargate import ConfigurationError, StoreUnavailable
from celery_stargate.contrib.django import checks, lanes
from celery_stargate.contrib.django.settings import OutboxSettings
from tests.django_project.world import FakeLanes, make_stargate

pytestmark = pytest.mark.usefixtures("using", "fake")


def found(**databases: Any) -> list[str]:
    return [each.id for each in checks.check_settings()]


def test_a_sound_project_has_no_finding() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("BATCHSIZE", 1, "did you mean 'CELERY_STARGATE_OUTBOX_BATCH_SIZE'"),
        ("BATCH_SIZE", 0, "above 0"),
        ("BATCH_SIZE", True, "whole number"),
        ("LEASE", "long", "seconds"),
        ("LEASE", float("inf"), "at most 1000000000 seconds, not inf"),
        ("CHECK_AFTER", float("nan"), "above 0"),
        ("POLL_INTERVAL", timedelta.max, "at most 1000000000 seconds"),
        ("BATCH_SIZE", 2**31, "up to 2147483647, not 2147483648"),
        ("REQUIRE_TRANSACTION", 1, "True or False"),
        ("MASK", 3, "text"),
    ],
)
def test_a_wrong_setting(name: str, value: Any, says: str) -> None:
    with override_settings(**{f"CELERY_STARGATE_OUTBOX_{name}": value}):
        assert found() == ["stargate.E001"]
        with pytest.raises(ConfigurationError, match=says):
            OutboxSettings.read()
        with pytest.raises(SystemCheckError):
            call_command("check")


def test_a_mask_and_a_listening_database_that_are_not_there() -> None:
    with override_settings(
        CELERY_STARGATE_OUTBOX_MASK="no.such.function",
        CELERY_STARGATE_OUTBOX_LISTEN_USING="default",
    ):
        assert found() == ["stargate.E003", "stargate.E004"]


def test_an_app_without_a_stargate(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Any:
        raise ConfigurationError("none")

    monkeypatch.setattr(lanes, "current_stargate", none)
    assert found() == ["stargate.W001"]
    # Told once, and not by the checks of its Redis again.
    assert checks.check_database(["default"]) == []


@pytest.mark.parametrize(
    ("conf", "finding"),
    [
        ({"stargate_max_frame_size": 2_000_000}, "stargate.W002"),
        ({"stargate_topics": {"x": 3}}, "stargate.E002"),
        (
            {
                "broker_url": "redis://localhost:1/0",
                "broker_transport_options": {"visibility_timeout": 43_200},
            },
            "stargate.W005",
        ),
    ],
)
def test_settings_of_stargate(
    conf: dict[str, Any], finding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stargate = make_stargate()
    stargate.app.conf.update(conf)
    monkeypatch.setattr(lanes, "current_stargate", lambda: stargate)
    assert found() == [finding]


@pytest.mark.parametrize(
    "conf",
    [{}, {"broker_transport_options": {"visibility_timeout": 600}}],
    ids=["kombu's", "short"],
)
def test_a_visibility_timeout_that_is_short_enough(
    conf: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost closing task comes again long before its row is given up."""
    stargate = make_stargate(**conf)
    stargate.app.conf.update(broker_url="redis://localhost:1/0")
    monkeypatch.setattr(lanes, "current_stargate", lambda: stargate)
    assert found() == []


class Router:
    """Orders are written where the outbox is not."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "postgres" if model._meta.app_label == "shop" else "default"

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "default" or app_label == "shop"


def test_data_on_an_alias_without_the_outbox() -> None:
    with override_settings(DATABASE_ROUTERS=["tests.unit.contrib.django.test_checks.Router"]):
        assert found() == ["stargate.W003"]


def test_sqlite_that_begins_as_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
    assert found() == ["stargate.W004"]


def test_databases_are_asked_only_when_named(
    fake: FakeLanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "memory_policy", lambda stargate: "allkeys-lru")
    assert checks.check_database(None) == []
    assert [each.id for each in checks.check_database(["default"])] == ["stargate.W006"]

    def away(stargate: Any) -> str:
        raise StoreUnavailable("away")

    monkeypatch.setattr(lanes, "memory_policy", away)
    assert [each.id for each in checks.check_database(["default"])] == ["stargate.W007"]
    monkeypatch.setattr(lanes, "memory_policy", lambda stargate: "noeviction")
    assert checks.check_database(["default"]) == []


def test_migrations_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "memory_policy", lambda stargate: "noeviction")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'celery_stargate'")
    try:
        assert [each.id for each in checks.check_database(["default"])] == ["stargate.W008"]
    finally:
        call_command("migrate", "celery_stargate", fake=True, verbosity=0)


def test_no_migration_is_missing_for_the_models() -> None:
    call_command("makemigrations", "celery_stargate", check=True, dry_run=True, verbosity=0)
