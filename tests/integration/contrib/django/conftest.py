"""Fixtures of the outbox's integration tests: SQLite and PostgreSQL, and lanes in Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.django_project.rig import OutboxRig
from tests.django_project.setup import configure, empty, migrate, use_postgres
from tests.servers import postgres as postgres_module
from tests.servers.fixtures import ServerAddress, require
from tests.servers.postgres import PostgresServer

configure()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this process, which the alias `postgres` names."""
    require(postgres_module.missing_reason())
    with PostgresServer() as server:
        use_postgres(server.django)
        yield server
        from django.db import connections

        connections["postgres"].close()


@pytest.fixture(params=["default", "postgres"])
def using(request: pytest.FixtureRequest) -> Iterator[str]:
    """The alias of a database: SQLite, and PostgreSQL."""
    alias = str(request.param)
    if alias == "postgres":
        request.getfixturevalue("postgres")
    migrate(alias)
    empty(alias)
    yield alias
    empty(alias)


@pytest.fixture
def rig(
    using: str, redis_server: ServerAddress, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OutboxRig]:
    """The outbox over lanes of a prefix of its own."""
    from celery_stargate.contrib.django import handover, lanes

    with OutboxRig(using, redis_server.url) as rig:
        monkeypatch.setattr(lanes, "current_stargate", lambda: rig.stargate)
        monkeypatch.setattr(handover, "_breaker", handover._Breaker())
        yield rig
