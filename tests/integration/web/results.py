"""Django with its results in PostgreSQL, in a process that is no worker; see `test_results.py`.

Run as a program: it drops all connections to the database between two calls, and prints the states.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

SECRET_KEY = "of this test only"
DATABASES: dict[str, Any] = {"default": json.loads(os.environ["SITE_DATABASE"])}
INSTALLED_APPS = ["django_celery_results"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True


def main() -> None:
    """Own lanes for calls whose results are stored in the database."""
    import django
    from celery import Celery
    from django.core.management import call_command
    from django.db import connection

    from celery_stargate import Acknowledger, Stargate

    django.setup()
    app = Celery("results", broker=os.environ["SITE_REDIS"], backend="django-db")
    app.conf.update(
        stargate_url=os.environ["SITE_PULSAR"],
        stargate_topic=os.environ["SITE_TOPIC"],
        stargate_prefix=os.environ["SITE_PREFIX"],
        stargate_redis_url=os.environ["SITE_REDIS"],
    )
    Stargate(app)
    call_command("migrate", verbosity=0)
    task: Any = app.tasks["celery_stargate.produce"]
    with Acknowledger(app):
        for _ in range(3):
            result, end = task.delay("x"), time.monotonic() + 20
            while not result.ready() and time.monotonic() < end:
                time.sleep(0.05)
            print(result.state, flush=True)
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
                print("open in effects:", cursor.fetchone()[0], file=sys.stderr)


if __name__ == "__main__":
    main()
