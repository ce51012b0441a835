"""The settings of the outbox: ``CELERY_STARGATE_OUTBOX_…`` in Django's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS
from django.dispatch import receiver

from celery_stargate.errors import ConfigurationError, nearest, shown
from celery_stargate.model.durations import LONGEST, is_duration

__all__ = ["PREFIX", "OutboxSettings"]

PREFIX = "CELERY_STARGATE_OUTBOX_"
#: What a database's integer field takes.
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxSettings:
    """All outbox settings, checked. Durations are seconds."""

    #: Whether ``outbox.produce`` outside a transaction is an error.
    require_transaction: bool = True
    #: Whether a row goes into its lane right after the commit; else the relay takes it.
    send_on_commit: bool = True
    #: How many rows the relay reads at once.
    batch_size: int = 500
    #: The relay's poll, also beneath LISTEN.
    poll_interval: float = 1.0
    #: The relay's lease on a shard of keys.
    lease: float = 15.0
    #: How often the relay tries a row that fails in an unexpected way before it sets it aside.
    max_tries: int = 10
    #: Whether a row that failed holds back later rows with the same topic and key.
    block_key_on_failure: bool = False
    #: After how long without an outcome the relay looks whether Redis still has a row.
    check_after: float = 60.0
    #: How long Redis knows an ended row, so that it is not sent again before it is closed. Twice
    #: the visibility timeout of Celery's Redis broker: after that a lost closing task comes again.
    remember: float = 7200.0
    #: The queue of Celery's for closing tasks, which the relay processes consume in batches; for
    #: other databases than the default its name has a dot and their alias after it. None: workers
    #: run them one by one.
    close_queue: str | None = None
    #: The alias that the relay listens on; for a database behind PgBouncer one that bypasses it.
    listen_using: str | None = None
    #: Dotted path of a function that gets a row and returns what the admin shows of its payload.
    mask: str | None = None

    def close_queue_of(self, using: str) -> str | None:
        """Return the queue of the closing tasks of a database's rows; None for the usual one.

        Each database has its own: one that is away holds up the rows of no other.
        """
        if self.close_queue is None or using == DEFAULT_DB_ALIAS:
            return self.close_queue
        return f"{self.close_queue}.{using}"

    @classmethod
    def read(cls, given: Mapping[str, Any] | None = None) -> OutboxSettings:
        """Read the settings from Django's, or from a mapping of full names.

        Raises:
            ConfigurationError: a setting does not exist or has a wrong type. It names the setting,
                what was found, and the nearest right name.
        """
        if given is None:
            return _of_django()
        known = {PREFIX + field.name.upper(): field for field in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                raise ConfigurationError(f"there is no setting {name}{nearest(name, known)}")
            values[known[name].name] = _checked(name, known[name].type, value)
        return cls(**values)


@cache
def _of_django() -> OutboxSettings:
    names = [name for name in dir(django_settings) if name.startswith(PREFIX)]
    return OutboxSettings.read({name: getattr(django_settings, name) for name in names})


@receiver(setting_changed)
def _forget(*, setting: str, **_: Any) -> None:
    """Read again what a test overrides."""
    if setting.startswith(PREFIX):
        _of_django.cache_clear()


def _checked(name: str, kind: Any, value: Any) -> Any:
    if kind == "bool":
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name} must be True or False, not {shown(value)}")
        return value
    if kind == "str | None":
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{name} must be text, not {shown(value)}")
        return value
    if kind == "float":
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        if not is_duration(seconds):
            raise ConfigurationError(
                f"{name} must be seconds or a timedelta above 0, and at most {LONGEST:.0f} "
                f"seconds, not {shown(value)}"
            )
        return float(seconds)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST:
        raise ConfigurationError(
            f"{name} must be a whole number above 0 and up to {_MOST}, not {shown(value)}"
        )
    return value
