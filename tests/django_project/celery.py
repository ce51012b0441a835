"""The Celery app of worker and relay processes; their environment names the settings."""

from __future__ import annotations

from celery import Celery

from celery_stargate import Stargate

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

stargate = Stargate(app)
