"""The fixtures, which take the place of pytest-celery's fixtures of the same name."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import (
    DEFAULT_WORKER_CONTAINER_TIMEOUT,
    DEFAULT_WORKER_VOLUME,
    CeleryTestCluster,
    CeleryTestNode,
)
from pytest_docker_tools import build, container, fxtr, network

from celery_stargate.testing.pytest_celery.addresses import PULSAR_CLUSTER_CONFIG
from celery_stargate.testing.pytest_celery.celery_setup import StargateTestSetup
from celery_stargate.testing.pytest_celery.pulsar import (
    PULSAR_CONTAINER_TIMEOUT,
    PulsarTestContainer,
)
from celery_stargate.testing.pytest_celery.worker import StargateWorkerContainer

__all__ = [
    "celery_base_worker_image",
    "celery_setup_cls",
    "celery_worker_cluster_config",
    "default_pulsar_cls",
    "default_pulsar_command",
    "default_pulsar_container",
    "default_pulsar_env",
    "default_pulsar_image",
    "default_pulsar_ports",
    "default_pytest_celery_network",
    "default_worker_container",
    "default_worker_container_cls",
    "default_worker_container_session_cls",
    "pulsar_cluster",
    "pulsar_cluster_config",
    "pulsar_node",
    "pulsar_topic",
]

# -- Pulsar -----------------------------------------------------------------------------------

# One for all tests, as the broker in it: a broker takes about ten seconds to start.
default_pytest_celery_network = network(scope="session")

default_pulsar_container = container(
    scope="session",
    image="{default_pulsar_image}",
    ports=fxtr("default_pulsar_ports"),
    environment=fxtr("default_pulsar_env"),
    network="{default_pytest_celery_network.name}",
    wrapper_class=PulsarTestContainer,
    timeout=PULSAR_CONTAINER_TIMEOUT,
    command=fxtr("default_pulsar_command"),
)


@pytest.fixture(scope="session")
def default_pulsar_cls() -> type[PulsarTestContainer]:
    """Return the class that gives the next fixtures their values. Override it for all at once."""
    return PulsarTestContainer


@pytest.fixture(scope="session")
def default_pulsar_image(default_pulsar_cls: type[PulsarTestContainer]) -> str:
    """Return the name of Pulsar's image."""
    return default_pulsar_cls.image()


@pytest.fixture(scope="session")
def default_pulsar_ports(default_pulsar_cls: type[PulsarTestContainer]) -> dict[str, int | None]:
    """Return the port bindings of Pulsar's container."""
    return default_pulsar_cls.ports()


@pytest.fixture(scope="session")
def default_pulsar_env(default_pulsar_cls: type[PulsarTestContainer]) -> dict[str, str]:
    """Return the environment of Pulsar's container: the broker's settings by their names."""
    return default_pulsar_cls.initial_env()


@pytest.fixture(scope="session")
def default_pulsar_command(default_pulsar_cls: type[PulsarTestContainer]) -> list[str]:
    """Return the command of Pulsar's container."""
    return default_pulsar_cls.command()


@pytest.fixture(scope="session")
def pulsar_node(default_pulsar_container: PulsarTestContainer) -> Iterator[Any]:
    """Give the Pulsar container as a node of pytest-celery: logs, kill, restart."""
    node = CeleryTestNode(default_pulsar_container)
    yield node
    node.teardown()


@pytest.fixture(scope="session")
def pulsar_cluster(pulsar_node: Any) -> Iterator[Any]:
    """Give the cluster with that node; the first node's URL is the apps' ``stargate_url``."""
    cluster = CeleryTestCluster(pulsar_node)
    yield cluster
    cluster.teardown()


@pytest.fixture
def pulsar_cluster_config(pulsar_cluster: Any) -> dict[str, list[str]]:
    """Return the nodes' URLs, for containers (``urls``) and for this process (``host_urls``)."""
    config: dict[str, list[str]] = pulsar_cluster.config()
    return config


@pytest.fixture
def pulsar_topic() -> str:
    """Return the full name of a topic that no other test uses."""
    return f"persistent://public/default/test-{uuid.uuid4().hex}"


# -- worker and app ---------------------------------------------------------------------------


@pytest.fixture
def celery_setup_cls() -> type[StargateTestSetup]:
    """Return the class of ``celery_setup``."""
    return StargateTestSetup


@pytest.fixture
def celery_worker_cluster_config(
    celery_broker_cluster_config: Mapping[str, Any] | None,
    celery_backend_cluster_config: Mapping[str, Any] | None,
    pulsar_cluster_config: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the URLs that apps and workers are configured with."""
    return {
        "celery_broker_cluster_config": celery_broker_cluster_config,
        "celery_backend_cluster_config": celery_backend_cluster_config,
        PULSAR_CLUSTER_CONFIG: pulsar_cluster_config,
    }


@pytest.fixture
def default_worker_container_cls() -> type[StargateWorkerContainer]:
    """Return the class that configures worker containers."""
    return StargateWorkerContainer


@pytest.fixture(scope="session")
def default_worker_container_session_cls() -> type[StargateWorkerContainer]:
    """Return the class that configures the workers' image."""
    return StargateWorkerContainer


celery_base_worker_image = build(
    path=str(Path(__file__).parent),
    tag="celery-stargate/worker:default",
    rm=True,
)

default_worker_container = container(
    image="{celery_base_worker_image.id}",
    ports=fxtr("default_worker_ports"),
    environment=fxtr("default_worker_env"),
    network="{default_pytest_celery_network.name}",
    volumes={"{default_worker_volume.name}": DEFAULT_WORKER_VOLUME},
    wrapper_class=StargateWorkerContainer,
    timeout=DEFAULT_WORKER_CONTAINER_TIMEOUT,
    command=fxtr("default_worker_command"),
)
