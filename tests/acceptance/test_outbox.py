"""Django's outbox from end to end: PostgreSQL, Redis, a worker, relays, and Pulsar."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.outbox import DATABASES, Plan, Trial
from tests.django_project.rig import STEPS
from tests.django_project.setup import configure
from tests.servers import postgres as postgres_module
from tests.servers import rabbitmq as rabbitmq_module
from tests.servers import redis as redis_module
from tests.servers.fixtures import PulsarAddress, require


@pytest.mark.timeout(400)
@pytest.mark.parametrize("database", DATABASES)
def test_nothing_is_lost_sent_after_a_roll_back_or_closed_without_a_receipt(
    pulsar: PulsarAddress, tmp_path: Path, database: str
) -> None:
    """400 rows, while relays are killed at each step and the database, Redis and Pulsar come and
    go; 100,000 are `python -m tests.acceptance.outbox`."""
    for module in (postgres_module, rabbitmq_module, redis_module):
        require(module.missing_reason())
    configure()
    # Each way of closing on one of the databases.
    plan = Plan(database, 400, close_queue=database == "sqlite")
    outcome = Trial(tmp_path, pulsar.url, pulsar.admin, plan).run()
    assert outcome.good, outcome
    assert outcome.committed >= 400 and outcome.rolled_back > 0
    assert outcome.forgotten > 0 and outcome.relay_kills == 2 + len(STEPS)
    assert outcome.late == (2 if database == "postgresql" else 0)
