"""A Django project with both outboxes: ours, and django-celery-outbox where it is installed."""

from __future__ import annotations

import importlib.util
import uuid
from typing import Any

import django
from celery import Celery
from django.conf import settings
from django.core.management import call_command

from celery_stargate import Stargate

__all__ = ["TOPIC", "configure", "has_rival"]

TOPIC = "persistent://public/default/outbox-bench"


def has_rival() -> bool:
    """Whether django-celery-outbox is here."""
    return importlib.util.find_spec("django_celery_outbox") is not None


def configure(database: dict[str, Any], redis_url: str) -> Stargate:
    """Set Django up with one database, and make its tables; return the Stargate of its app."""
    settings.configure(
        SECRET_KEY="of this benchmark only",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "celery_stargate.contrib.django",
            *(["django_celery_outbox"] if has_rival() else []),
        ],
        DATABASES={"default": database},
        CELERY_STARGATE_OUTBOX_SEND_ON_COMMIT=False,
    )
    app = Celery("bench")
    app.conf.update(
        broker_url=redis_url,
        # Nobody sends what goes into the lane.
        stargate_url="ws://127.0.0.1:1",
        stargate_redis_url=redis_url,
        stargate_prefix=f"bench-{uuid.uuid4().hex[:8]}",
        stargate_topic=TOPIC,
    )
    stargate = Stargate(app)
    app.set_current()
    app.set_default()
    django.setup()
    call_command("migrate", verbosity=0)
    return stargate
