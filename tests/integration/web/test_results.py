"""Results in Django's database, stored by a process that is no worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from celery_stargate.testing import LocalPulsar
from tests.servers import postgres
from tests.servers.fixtures import ServerAddress, require
from tests.servers.postgres import PostgresServer

_ROOT = Path(__file__).parents[3]
_MODULE = "tests.integration.web.results"


def test_a_dropped_connection_does_not_end_the_storing_of_results(
    redis_server: ServerAddress, local: LocalPulsar, topic: str, prefix: str
) -> None:
    """The threads of the effects close and renew theirs, as around a task in a worker."""
    require(postgres.missing_reason())
    with PostgresServer() as server:
        # For ever: nobody but us closes it.
        database = {**server.django, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False}
        ran = subprocess.run(
            [sys.executable, "-m", _MODULE],
            cwd=_ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": _MODULE,
                "SITE_DATABASE": json.dumps(database),
                "SITE_REDIS": redis_server.url,
                "SITE_PULSAR": local.url,
                "SITE_TOPIC": topic,
                "SITE_PREFIX": prefix,
            },
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    assert ran.stdout.split() == ["SUCCESS"] * 3, ran.stderr
