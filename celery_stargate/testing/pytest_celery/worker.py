"""A worker's container whose Celery app publishes to the Pulsar of the test."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from pytest_celery import CeleryWorkerContainer

from celery_stargate.testing.pytest_celery import worker_app

__all__ = ["PULSAR_CLUSTER_CONFIG", "StargateWorkerContainer"]

#: Where `celery_worker_cluster_config` holds the URLs of the Pulsar cluster.
PULSAR_CLUSTER_CONFIG = "pulsar_cluster_config"


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
            KeyError: the configuration names no Pulsar cluster.
        """
        env: dict[str, Any] = super().initial_env(celery_worker_cluster_config, initial)
        env["STARGATE_URL"] = celery_worker_cluster_config[PULSAR_CLUSTER_CONFIG]["urls"][0]
        return env
