"""The tutorial, done as its pages print it: commands, files, and what comes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.walk import Walk, environment
from tests.servers.fixtures import require
from tests.servers.ports import free_ports
from tests.servers.redis import missing_reason

_TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    """A reader in an empty folder, with ports that are free."""
    require(missing_reason())
    redis, pulsar = free_ports(2)
    changed = {
        "redis-server --appendonly": f"redis-server --port {redis} --appendonly",
        '"redis://localhost"': f'"redis://localhost:{redis}"',
        "ws://localhost:8080": f"ws://localhost:{pulsar}",
        "ws://127.0.0.1:8080": f"ws://127.0.0.1:{pulsar}",
        "-m celery_stargate.testing": f"-m celery_stargate.testing --port {pulsar}",
    }
    found = Walk(tmp_path, changed, environment(tmp_path))
    yield found
    found.close()


def test_the_tutorial(walk: Walk) -> None:
    """Each step of both pages does what its page says, in one folder as a reader has it."""
    assert walk.page(_TUTORIAL / "first_receipt.md") >= 12
    # As the second page asks.
    walk.stop("worker")
    assert walk.page(_TUTORIAL / "django_shop.md") >= 17
