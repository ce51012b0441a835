"""The Django app of the outbox and the inbox."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["APP_LABEL", "StargateConfig"]

#: The app's label: the prefix of its tables and permissions.
APP_LABEL = "celery_stargate"


class StargateConfig(AppConfig):
    """Installs the models, system checks, tasks and admin."""

    name = "celery_stargate.contrib.django"
    label = APP_LABEL
    verbose_name = "Stargate"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and the tasks: eager mode runs them in any process."""
        # They need models, which can be imported only now.
        from celery_stargate.contrib.django import checks, tasks  # noqa: F401, PLC0415

        checks.register_all()
