"""The tutorial, done as its pages print it: commands, files, and what comes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.walk import Walk, environment
from tests.servers.fixtures import require
from tests.servers.process import free_ports
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


def test_ten_minutes_to_a_receipt(walk: Walk) -> None:
    """Each step of the page does what the page says."""
    assert walk.page(_TUTORIAL / "first_receipt.md") >= 12


def test_an_order_and_its_event_in_django(walk: Walk, tmp_path: Path) -> None:
    """Each step of the page does what the page says, with the servers of the page before it."""
    servers = _only(_TUTORIAL / "first_receipt.md", ("redis", "pulsar"), tmp_path)
    walk.page(servers)
    assert walk.page(_TUTORIAL / "django_shop.md") >= 18


def _only(page: Path, names: tuple[str, ...], folder: Path) -> Path:
    """Return a page with the blocks that open these terminals for the first time."""
    text = page.read_text("utf-8")
    blocks = []
    for name in names:
        begin = text.index(f"<!-- terminal: {name} -->")
        blocks.append(text[begin : text.index("```\n", text.index("\n```console", begin) + 5) + 4])
    path = folder / "servers.md"
    path.write_text("\n".join(blocks))
    return path
