"""Django for tests in this process: SQLite as `default`, PostgreSQL as `postgres`."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from tests.django_project import settings as project

__all__ = ["configure", "empty", "migrate", "use_postgres"]

_migrated: set[str] = set()


def configure() -> None:
    """Set Django up, once for the process, and without its environment variable: Celery would
    take that as a wish to be set up for Django, in other tests and their processes."""
    if settings.configured:
        return
    folder = Path(tempfile.mkdtemp(prefix="stargate-django-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    values: dict[str, Any] = {
        name: getattr(project, name) for name in dir(project) if name.isupper()
    }
    values["DATABASES"] = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(folder / "shop.sqlite3"),
            "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"},
        },
        # Its address is known when the server runs.
        "postgres": {"ENGINE": "django.db.backends.postgresql", "NAME": "shop", "PORT": "1"},
    }
    settings.configure(**values)
    django.setup()


def use_postgres(address: dict[str, Any]) -> None:
    """Let the alias `postgres` be a database that runs."""
    settings.DATABASES["postgres"].update(address)
    connections["postgres"].close()
    connections["postgres"].settings_dict.update(address)
    _migrated.discard("postgres")


def migrate(using: str) -> None:
    """Make the tables, once for each database."""
    if using not in _migrated:
        call_command("migrate", database=using, run_syncdb=True, verbosity=0)
        _migrated.add(using)


def empty(using: str) -> None:
    """Delete what a test left in the tables of the outbox and the shop."""
    from celery_stargate.contrib.django import models
    from tests.django_project.shop.models import Order

    connection = connections[using]
    with suppress(Exception):
        connection.close()
    for model in (
        models.OutboxMessage,
        models.OutboxShard,
        models.OutboxRelay,
        models.InboxClaim,
        Order,
    ):
        model.objects.using(using).all().delete()
    connection.close()
