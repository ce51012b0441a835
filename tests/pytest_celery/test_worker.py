"""The worker component by itself."""

from __future__ import annotations

import pytest
from pytest_docker_tools import container
from pytest_docker_tools.exceptions import ContainerFailed

from celery_stargate import ConfigurationError
from celery_stargate.testing.pytest_celery import StargateWorkerContainer

worker_that_ends = container(
    image="{celery_base_worker_image.id}",
    wrapper_class=StargateWorkerContainer,
    command=["false"],
)


def test_a_worker_that_ends_is_an_error_at_once(request: pytest.FixtureRequest) -> None:
    """Its log line is not waited for: pytest-celery would, for two minutes."""
    with pytest.raises(ContainerFailed):
        request.getfixturevalue("worker_that_ends")


def test_a_worker_needs_a_pulsar() -> None:
    """Without the URLs of a Pulsar cluster, the environment cannot be made."""
    urls = {"urls": ["redis://r/0"]}
    config = {"celery_broker_cluster_config": urls, "celery_backend_cluster_config": urls}
    with pytest.raises(ConfigurationError, match="pulsar_cluster_config"):
        StargateWorkerContainer.initial_env(config)
