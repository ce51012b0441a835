"""Fixtures of the acceptance tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.rig import Rig, Worker
from tests.servers.fixtures import PulsarAddress, ServerAddress

MakeRig = Callable[..., Rig]


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where workers write their logs."""
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def make_rig(pulsar: PulsarAddress, redis_server: ServerAddress, logs: Path) -> Iterator[MakeRig]:
    """Make rigs on the shared servers, with settings of their own; all end with the module."""
    with ExitStack() as rigs:

        def make(*, redis_url: str | None = None, **conf: Any) -> Rig:
            rig = Rig(pulsar.url, pulsar.admin, redis_url or redis_server.url, logs, conf)
            return rigs.enter_context(rig)

        yield make


@pytest.fixture(scope="module")
def rig(make_rig: MakeRig) -> Rig:
    """An app on the shared servers: Redis is broker, backend and the lanes' store."""
    return make_rig()


@pytest.fixture(scope="module")
def worker(rig: Rig) -> Iterator[Worker]:
    """A prefork worker of that app, shared by the module's tests."""
    with rig.worker() as worker:
        yield worker
