"""The setup of a test: its Celery app has a Stargate, so it can publish too."""

from __future__ import annotations

from typing import Any

from celery import Celery
from pytest_celery import CeleryTestSetup

from celery_stargate import Stargate
from celery_stargate.testing.pytest_celery.addresses import pulsar_addresses

__all__ = ["StargateTestSetup"]


class StargateTestSetup(CeleryTestSetup):
    """A setup whose app publishes to the test's Pulsar.

    Subclass it and override ``update_app_config`` to set more, such as ``stargate_topic``: the
    worker gets the same settings.
    """

    @classmethod
    def config(cls, celery_worker_cluster_config: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration of the app in the test's process.

        Args:
            celery_worker_cluster_config: the URLs of brokers, backends and Pulsar, as the fixture
                of that name gives them.

        Raises:
            ValueError: the configuration is empty.
            celery_stargate.ConfigurationError: it names no Pulsar cluster.
        """
        config: dict[str, Any] = super().config(celery_worker_cluster_config)
        config["stargate_url"] = pulsar_addresses(celery_worker_cluster_config)["host_urls"][0]
        return config

    @classmethod
    def create_setup_app(
        cls, celery_setup_config: dict[str, Any], celery_setup_app_name: str
    ) -> Celery:
        """Return the app, with its Stargate.

        Args:
            celery_setup_config: what :meth:`config` returned.
            celery_setup_app_name: the app's name.

        Raises:
            ValueError: there is no configuration, or no name.
        """
        app: Celery = super().create_setup_app(celery_setup_config, celery_setup_app_name)
        Stargate(app)
        return app

    def ready(self, ping: bool = False, control: bool = False, docker: bool = True) -> bool:
        """Make the setup's app the current one, and tell whether the setup is ready.

        Args:
            ping: ask each worker by a task.
            control: ask each worker by remote control.
            docker: ask whether each container is ready.
        """
        # pytest-celery makes other apps of the same name on the way, and Celery takes the last one
        # that was made for the current one: `produce_task` and shared tasks would use that.
        self.app.set_current()
        return bool(super().ready(ping=ping, control=control, docker=docker))

    @property
    def stargate(self) -> Stargate:
        """The Stargate of the test's app."""
        return Stargate.of(self.app)

    def teardown(self) -> None:
        """Close what the Stargate holds open, before its Redis goes away."""
        self.stargate.close()
        super().teardown()
