"""The Django example with Celery's results in the database, by django-celery-results."""

from __future__ import annotations

from pathlib import Path

from celery_stargate.testing import LocalPulsar
from tests.acceptance.shop import Shop
from tests.servers import redis as redis_module
from tests.servers.fixtures import require
from tests.servers.redis import RedisServer

_ASK = """
from celery_stargate.contrib.django import outbox
from django.db import transaction
from django_celery_results.models import TaskResult
with transaction.atomic():
    result = outbox.produce_on_commit("by hand", topic="orders")
receipt = result.get(timeout=60)
print("FOUND", receipt["status"], TaskResult.objects.get(task_id=result.id).status)
"""


def test_results_may_be_in_the_database(tmp_path: Path) -> None:
    """An order is published, its row is closed, and the result of a produce task, which
    `produce_on_commit` returns, comes by the table of django-celery-results."""
    require(redis_module.missing_reason())
    with LocalPulsar() as local, RedisServer(tmp_path / "redis") as redis:
        shop = Shop(
            tmp_path,
            redis.url,
            local.url,
            "INSTALLED_APPS = [*INSTALLED_APPS, 'django_celery_results']\n"
            "CELERY_RESULT_BACKEND = 'django-db'\n"
            "CELERY_STARGATE_REDIS_URL = REDIS_URL\n",
        )
        try:
            shop.start(worker=True)
            status, taken = shop.request("/orders/", {"item": "lamp"})
            assert status == 202
            assert shop.settled(taken["id"])["status"] == "published"
            assert "FOUND stored SUCCESS" in shop.manage("shell", "-c", _ASK)
        finally:
            shop.stop()
