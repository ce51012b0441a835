"""The Celery app, and celery_stargate bound to it."""

import os

from celery import Celery
from celery_stargate import Stargate

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

stargate = Stargate(app)
