"""System checks.

================= ============================================================================
stargate.E001     a ``CELERY_STARGATE_OUTBOX_…`` setting does not exist or has a wrong type
stargate.E002     a ``stargate_…`` setting is wrong or missing
stargate.E003     ``CELERY_STARGATE_OUTBOX_MASK`` cannot be imported
stargate.E004     ``CELERY_STARGATE_OUTBOX_LISTEN_USING`` names no PostgreSQL database
stargate.W001     the Celery app has no Stargate
stargate.W002     a frame may be larger than Pulsar's default limit
stargate.W003     data is written to a database that does not have the outbox's table
stargate.W004     SQLite begins transactions as readers, so writers may fail as "locked"
stargate.W005     Celery's Redis broker gives a lost task back too late to close its row
stargate.W006     (``--database``) Redis may evict pending messages
stargate.W007     (``--database``) Redis did not answer
stargate.W008     (``--database``) the outbox's migrations are not applied
================= ============================================================================

Those with ``--database`` run only under ``manage.py check --database ALIAS``. The outbox uses no
``SKIP LOCKED``, so a database without it is as good as any.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import current_app
from django.apps import apps
from django.core.checks import Error, Tags, Warning, register  # noqa: A004  # Django's name
from django.db import connections, router
from django.db.migrations.executor import MigrationExecutor
from django.utils.module_loading import import_string

from celery_stargate.app import Stargate
from celery_stargate.contrib.django import lanes
from celery_stargate.contrib.django.apps import APP_LABEL
from celery_stargate.contrib.django.settings import PREFIX, OutboxSettings
from celery_stargate.errors import ConfigurationError, StargateError

__all__ = ["check_database", "check_settings", "register_all"]

#: Pulsar's ``webSocketMaxTextFrameSize``, in bytes.
_PULSARS_FRAME = 1_048_576
#: Kombu's visibility timeout for Redis, in seconds.
_VISIBILITY_TIMEOUT = 3600.0

Message = Any


def register_all() -> None:
    """Register the checks; Django calls them."""
    register(check_settings)
    register(Tags.database)(check_database)


def check_settings(**_: Any) -> list[Message]:
    """Check what needs no server."""
    found: list[Message] = []
    try:
        settings = OutboxSettings.read()
    except ConfigurationError as error:
        return [Error(str(error), id="stargate.E001")]
    if settings.mask is not None:
        try:
            import_string(settings.mask)
        except ImportError as error:
            found.append(Error(f"{PREFIX}MASK: {error}", id="stargate.E003"))
    alias = settings.listen_using
    if alias is not None and (
        alias not in connections or connections[alias].vendor != "postgresql"
    ):
        found.append(
            Error(f"{PREFIX}LISTEN_USING: {alias!r} is no PostgreSQL database", id="stargate.E004")
        )
    found += _check_stargate(settings)
    found += _check_aliases()
    return found


def check_database(databases: Iterable[str] | None = None, **_: Any) -> list[Message]:
    """Check what needs the database or Redis: ``manage.py check --database ALIAS``."""
    found: list[Message] = []
    aliases = [alias for alias in databases or () if router.allow_migrate_model(alias, _model())]
    for alias in aliases:
        executor = MigrationExecutor(connections[alias])
        ours = [key for key in executor.loader.graph.leaf_nodes() if key[0] == APP_LABEL]
        if executor.migration_plan(ours):
            found.append(
                # No error: "migrate" itself runs this check first.
                Warning(
                    f"migrations of {APP_LABEL} are not applied to the database {alias!r}",
                    hint=f"Run: manage.py migrate {APP_LABEL} --database {alias}",
                    id="stargate.W008",
                )
            )
    if aliases:
        found += _check_redis()
    return found


def _model() -> Any:
    return apps.get_model(APP_LABEL, "OutboxMessage")


def _stargate() -> Stargate | None:
    try:
        return lanes.current_stargate()
    except ConfigurationError:
        return None


def _check_stargate(settings: OutboxSettings) -> list[Message]:
    stargate = _stargate()
    if stargate is None:
        return [
            Warning(
                f"the Celery app {current_app.main!r} has no Stargate",
                hint="Call Stargate(app) where the Celery app is made, and import that module in "
                "your project's __init__.py, as Celery's page on Django says.",
                id="stargate.W001",
            )
        ]
    try:
        stargate.settings.require_url()
        lanes.require_redis(stargate)
    except ConfigurationError as error:
        return [Error(str(error), id="stargate.E002")]
    found: list[Message] = []
    options = [stargate.settings.options, *(own for _, own in stargate.settings.topics.values())]
    largest = max(each.max_frame_size for each in options)
    if largest > _PULSARS_FRAME:
        found.append(
            Warning(
                f"stargate_max_frame_size is {largest}, and Pulsar closes the connection on a "
                f"frame above {_PULSARS_FRAME} bytes by default",
                hint="Set webSocketMaxTextFrameSize in the broker to the same size.",
                id="stargate.W002",
            )
        )
    found += _check_visibility(stargate, settings)
    return found


def _check_visibility(stargate: Stargate, settings: OutboxSettings) -> list[Message]:
    conf = stargate.app.conf
    if not str(conf.broker_read_url or conf.broker_url or "").startswith(("redis", "sentinel")):
        return []
    timeout = (conf.broker_transport_options or {}).get("visibility_timeout", _VISIBILITY_TIMEOUT)
    if timeout < settings.remember * 0.75:
        return []
    return [
        Warning(
            f"Celery's Redis broker gives back what a lost worker had fetched after {timeout:g} s, "
            f"and {PREFIX}REMEMBER is {settings.remember:g} s: the row of a lost closing task may "
            "be set to unknown before",
            hint=f"Set {PREFIX}REMEMBER to twice the visibility_timeout, or lower that.",
            id="stargate.W005",
        )
    ]


def _check_aliases() -> list[Message]:
    found: list[Message] = []
    model = _model()
    ours = {alias for alias in connections if router.allow_migrate_model(alias, model)}
    written: dict[str, str] = {}
    for each in apps.get_models():
        if not each.__module__.startswith(("django.", "celery_stargate.", "django_celery_")):
            written.setdefault(router.db_for_write(each), each._meta.label)  # noqa: SLF001  # public by Django's docs
    for alias, label in written.items():
        if alias not in ours:
            found.append(
                Warning(
                    f"{label} is written to the database {alias!r}, which does not have the table "
                    "of the outbox: a row and its message cannot commit together there",
                    hint=f"Let your router's allow_migrate accept {APP_LABEL} on {alias!r}, and "
                    f"write with outbox.produce(..., using={alias!r}).",
                    id="stargate.W003",
                )
            )
    for alias in ours:
        connection = connections[alias]
        if connection.vendor != "sqlite":
            continue
        mode = connection.settings_dict.get("OPTIONS", {}).get("transaction_mode") or ""
        if str(mode).upper() not in {"IMMEDIATE", "EXCLUSIVE"}:
            found.append(
                Warning(
                    f"the SQLite database {alias!r} begins transactions as readers: web server, "
                    'worker and relay may fail with "database is locked"',
                    hint="Set OPTIONS = {'transaction_mode': 'IMMEDIATE', 'timeout': 20}.",
                    id="stargate.W004",
                )
            )
    return found


def _check_redis() -> list[Message]:
    stargate = _stargate()
    if stargate is None:
        return []
    try:
        policy = lanes.memory_policy(stargate)
    except StargateError as error:
        return [Warning(f"the Redis of the lanes: {error}", id="stargate.W007")]
    if policy in {"", "noeviction"}:
        return []
    return [
        Warning(
            f"Redis' maxmemory-policy is {policy}: it may evict messages that wait for Pulsar",
            hint="Set maxmemory-policy noeviction.",
            id="stargate.W006",
        )
    ]
