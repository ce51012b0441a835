"""A worker's container whose Celery app publishes to the Pulsar of the test."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from pytest_celery import CeleryWorkerContainer
from pytest_docker_tools.wrappers import Container

from celery_stargate.testing.pytest_celery import worker_app
from celery_stargate.testing.pytest_celery.addresses import pulsar_addresses

__all__ = ["StargateWorkerContainer"]


class StargateWorkerContainer(CeleryWorkerContainer):
    """A worker whose app has a Stargate. Its URL comes by the variable ``STARGATE_URL``.

    Subclass it, as pytest-celery's own class, for other tasks, another image or other settings.
    """

    @classmethod
    def app_module(cls) -> ModuleType:
        """Return the module that makes the app in the container."""
        return worker_app

    @classmethod
    def initial_env(
        cls, celery_worker_cluster_config: dict[str, Any], initial: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the environment of the container.

        Args:
            celery_worker_cluster_config: the URLs of brokers, backends and Pulsar, as the fixture
                of that name gives them.
            initial: variables of your own.

        Raises:
            celery_stargate.ConfigurationError: the configuration names no Pulsar cluster.
        """
        env: dict[str, Any] = super().initial_env(celery_worker_cluster_config, initial)
        env["STARGATE_URL"] = pulsar_addresses(celery_worker_cluster_config)["urls"][0]
        return env

    def ready(self) -> bool:
        """Tell whether the worker says that it is ready.

        Raises:
            pytest_docker_tools.exceptions.ContainerFailed: the container has ended.
        """
        # CeleryTestContainer.ready looks for the line for two minutes, even when the container has
        # ended. Who calls this calls it again until it is true or the time is over.
        return bool(Container.ready(self)) and self.ready_prompt in self.logs()
