"""The Celery app of worker and relay processes."""

from __future__ import annotations

import os

from celery import Celery

from celery_stargate import Stargate

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django_project.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

stargate = Stargate(app)
