"""Django's outbox from end to end: PostgreSQL, Redis, a worker, relays, and Pulsar."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.outbox import Trial
from tests.django_project.setup import configure
from tests.servers import postgres as postgres_module
from tests.servers import rabbitmq as rabbitmq_module
from tests.servers import redis as redis_module
from tests.servers.fixtures import PulsarAddress, require


@pytest.mark.timeout(400)
def test_nothing_is_lost_sent_after_a_roll_back_or_closed_without_a_receipt(
    pulsar: PulsarAddress, tmp_path: Path
) -> None:
    """400 rows, while relays are killed and the database, Redis and Pulsar come and go; 100,000
    are `python -m tests.acceptance.outbox`, with or without a queue for closing tasks."""
    for module in (postgres_module, rabbitmq_module, redis_module):
        require(module.missing_reason())
    configure()
    outcome = Trial(tmp_path, pulsar.url, pulsar.admin, 400, close_queue=False).run()
    assert outcome.good, outcome
    assert outcome.committed >= 400 and outcome.rolled_back > 0
