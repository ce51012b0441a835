"""Images by variables, the public ones by default, and what the tests ask of a setup."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from types import ModuleType
from typing import Any

import docker
import pytest
from celery import Celery
from docker.errors import DockerException
from pytest_celery import RABBITMQ_CONTAINER_TIMEOUT, RabbitMQContainer
from pytest_docker_tools import container
from pytest_docker_tools.wrappers import container as container_module

from celery_stargate.testing.pytest_celery import PulsarTestContainer, StargateTestSetup
from tests.pytest_celery import tasks

pytest_plugins = ["celery_stargate.testing.pytest_celery"]

#: The bound on a wait for what should take a moment, in seconds.
WAIT = 60.0
#: Seconds: short, because a test waits for one to pass.
LEASE = 2.0

# pytest-docker-tools takes a virtual machine that was made from a container's image (it has
# /.dockerenv) for a container, and then pytest-celery joins `localhost` and a port that only the
# container has. These tests run where the engine runs: published ports on 127.0.0.1 are right.
container_module.tests_inside_container = lambda: False


def _image(name: str, default: str) -> str:
    return os.environ.get(f"STARGATE_TEST_IMAGE_{name}", default)


def _missing_reason() -> str | None:
    try:
        docker.from_env(timeout=10).ping()
    except DockerException as error:
        return f"no Docker engine answers: {error}"
    if "STARGATE_TEST_IMAGE_WORKER" not in os.environ:
        return "STARGATE_TEST_IMAGE_WORKER names no image; `tox -e pytest-celery` makes one"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all where there is no engine; where CI is set, let them fail."""
    reason = _missing_reason()
    if reason is not None and not os.environ.get("CI"):
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def default_pulsar_image() -> str:
    return _image("PULSAR", PulsarTestContainer.image())


@pytest.fixture
def default_redis_broker_image() -> str:
    return _image("REDIS", "redis:7")


@pytest.fixture
def default_redis_backend_image() -> str:
    return _image("REDIS", "redis:7")


# One for all tests: RabbitMQ takes six seconds or more to start.
default_rabbitmq_broker = container(
    scope="session",
    image=_image("RABBITMQ", "rabbitmq:4"),
    ports=RabbitMQContainer.ports(),
    network="{default_pytest_celery_network.name}",
    wrapper_class=RabbitMQContainer,
    timeout=RABBITMQ_CONTAINER_TIMEOUT,
)


@pytest.fixture(scope="session")
def celery_base_worker_image(docker_client: docker.DockerClient) -> Any:
    """The image that `tools/images.py` made, with this checkout's celery_stargate."""
    return docker_client.images.get(os.environ["STARGATE_TEST_IMAGE_WORKER"])


@pytest.fixture
def default_worker_tasks(default_worker_tasks: set[ModuleType]) -> set[ModuleType]:
    return {*default_worker_tasks, tasks}


class Setup(StargateTestSetup):
    """A setup with a short lease, and what the tests ask of it."""

    @classmethod
    def update_app_config(cls, app: Celery) -> None:
        app.conf.stargate_lease = LEASE

    def noted(self, key: str) -> list[dict[str, Any]]:
        """Return what the task `note` appended to a list so far."""
        return [json.loads(entry) for entry in self.app.backend.client.lrange(key, 0, -1)]

    def owner(self, topic: str) -> str | None:
        """Return who holds the lease of a topic's lane: it begins with the container's name."""
        found = self.app.backend.client.get(f"stargate:{{{topic}#0}}:lease")
        return None if found is None else str(found.decode())


@pytest.fixture
def celery_setup_cls() -> type[Setup]:
    return Setup


@pytest.fixture
def key() -> str:
    """The name of a list that no other test uses."""
    return f"noted-{uuid.uuid4().hex}"


def eventually(condition: Callable[[], Any], timeout: float = WAIT, every: float = 0.05) -> Any:
    """Ask until the answer is true, and return it; the last answer when the time is over."""
    end = time.monotonic() + timeout
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(every)
    return found
