"""The pytest plugin of celery_stargate: fixtures for testing code that publishes to Pulsar.

pytest loads it in every project where celery-stargate is installed, so this module imports neither
Celery nor celery_stargate: the first test that asks for a fixture does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from celery import Celery

    from celery_stargate.testing import LocalPulsar, MemoryPulsar, Receipts
    from celery_stargate.testing.remote import RemotePulsar

#: Each option's name on the command line, in the ini file and in the environment, and its help.
_OPTIONS = {
    "stargate_url": (
        "--stargate-url",
        "STARGATE_TEST_URL",
        (
            "Pulsar for the fixtures stargate_eager and stargate_pulsar: ws://HOST:PORT of a real "
            "one, or 'local' for a LocalPulsar. By default stargate_eager keeps messages in "
            "memory, and stargate_pulsar is a LocalPulsar."
        ),
    ),
    "stargate_redis_url": (
        "--stargate-redis-url",
        "STARGATE_TEST_REDIS_URL",
        "Redis for the fixture stargate_redis; by default the tests start one.",
    ),
    "stargate_app": (
        "--stargate-app",
        "STARGATE_TEST_APP",
        (
            "the Celery app to test, as `celery -A` takes it, such as shop.celery; by default "
            "Celery's current app."
        ),
    ),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, each also a setting of the ini file and a variable of the environment."""
    group = parser.getgroup("stargate", "celery_stargate")
    for name, (flag, variable, text) in _OPTIONS.items():
        group.addoption(flag, dest=name, default=None, help=f"{text} (also ${variable})")
        parser.addini(name, text, default="")


def _option(config: pytest.Config, name: str) -> str:
    given = config.getoption(name) or os.environ.get(_OPTIONS[name][1]) or config.getini(name)
    return str(given or "")


@pytest.fixture
def stargate_base_app(pytestconfig: pytest.Config) -> Celery:
    """The Celery app whose code is tested; override this fixture to return another.

    It is the one that the option `stargate_app` names, else Celery's current one if it has a
    Stargate, else an empty app of this test's own.
    """
    from celery_stargate.testing import fixtures

    return fixtures.base_app(_option(pytestconfig, "stargate_app"))


@pytest.fixture
def stargate_config() -> dict[str, Any]:
    """More settings of the app for a test; override this fixture to return some."""
    return {}


@pytest.fixture
def stargate_eager(
    stargate_base_app: Celery, stargate_config: dict[str, Any], pytestconfig: pytest.Config
) -> Iterator[MemoryPulsar | LocalPulsar | RemotePulsar]:
    """Your app in eager mode: tasks and callbacks run in the test's thread; no worker, no Redis.

    What the code produces stays in memory, where `stargate_eager.assert_produced` looks; with
    `--stargate-url` it goes to that Pulsar.
    """
    from celery_stargate.testing import fixtures

    url = _option(pytestconfig, "stargate_url")
    with fixtures.eager(stargate_base_app, url, stargate_config) as pulsar:
        yield pulsar


@pytest.fixture
def stargate_pulsar(pytestconfig: pytest.Config) -> Iterator[LocalPulsar | RemotePulsar]:
    """A fresh `LocalPulsar`, with its faults; with `--stargate-url` that Pulsar."""
    from celery_stargate.testing import fixtures

    with fixtures.pulsar(_option(pytestconfig, "stargate_url")) as found:
        yield found


@pytest.fixture(scope="session")
def stargate_redis_server(pytestconfig: pytest.Config) -> Iterator[str]:
    """The URL of the Redis of this run: an own `redis-server`, fakeredis, or the one you name."""
    from celery_stargate.testing import fixtures

    with fixtures.redis_server(_option(pytestconfig, "stargate_redis_url")) as url:
        yield url


@pytest.fixture
def stargate_redis(stargate_redis_server: str, pytestconfig: pytest.Config) -> str:
    """The URL of a Redis for Celery and the lanes.

    It is empty at the start of each test. One that `--stargate-redis-url` names keeps what is in
    it; there each test has a prefix of its own.
    """
    from celery_stargate.testing import fixtures

    if not _option(pytestconfig, "stargate_redis_url"):
        fixtures.flush(stargate_redis_server)
    return stargate_redis_server


@pytest.fixture
def stargate_app(
    stargate_base_app: Celery,
    stargate_config: dict[str, Any],
    stargate_pulsar: LocalPulsar | RemotePulsar,
    stargate_redis: str,
) -> Iterator[Celery]:
    """Your app, on the test's Pulsar and Redis: `delay` records in a lane, as in production."""
    from celery_stargate.testing import fixtures

    with fixtures.served(stargate_base_app, stargate_pulsar, stargate_redis, stargate_config):
        yield stargate_base_app


@pytest.fixture
def stargate_worker_parameters() -> dict[str, Any]:
    """The arguments of the worker (`celery.contrib.testing.worker.start_worker`); override it."""
    return {}


@pytest.fixture
def stargate_worker(
    stargate_app: Celery, stargate_worker_parameters: dict[str, Any]
) -> Iterator[Any]:
    """A worker of your app in a thread: it publishes what lanes hold, and runs tasks."""
    from celery_stargate.testing import fixtures

    with fixtures.worker(stargate_app, stargate_worker_parameters) as worker:
        yield worker


@pytest.fixture
def stargate_receipts(request: pytest.FixtureRequest) -> Receipts:
    """The receipts of this test's Pulsar: `hold()`, `release()`, `fail_next(code)`.

    They are those of `stargate_pulsar` if the test or one of its fixtures uses it, else those of
    `stargate_eager`.
    """
    served = "stargate_pulsar" in request.fixturenames
    pulsar = request.getfixturevalue("stargate_pulsar" if served else "stargate_eager")
    return pulsar.receipts  # type: ignore[no-any-return]
