"""Pulsar, and workers that publish to it, in containers: components and fixtures for pytest-celery.

Put them into the top conftest of your tests:

    pytest_plugins = ["celery_stargate.testing.pytest_celery"]

``celery_setup`` then has Pulsar beside its broker and backend, its app has a Stargate, and so has
the app in the worker's container. It needs pytest-celery 1.3 or newer (the extra
``pytest-celery``) and Docker.

PYTEST_DONT_REWRITE: nothing is asserted here, and your conftest may import from here.
"""

from __future__ import annotations

from celery_stargate.testing.pytest_celery.celery_setup import StargateTestSetup
from celery_stargate.testing.pytest_celery.fixtures import *  # noqa: F403  # pytest finds them here
from celery_stargate.testing.pytest_celery.pulsar import PulsarTestContainer
from celery_stargate.testing.pytest_celery.worker import StargateWorkerContainer

__all__ = ["PulsarTestContainer", "StargateTestSetup", "StargateWorkerContainer"]
