from types import ModuleType

import pytest
from celery import Celery

from celery_stargate.testing.pytest_celery import StargateTestSetup

from . import tasks


class ShopSetup(StargateTestSetup):
    @classmethod
    def update_app_config(cls, app: Celery) -> None:
        app.conf.stargate_delivery = "effectively_once"


@pytest.fixture
def celery_setup_cls() -> type[StargateTestSetup]:
    return ShopSetup


@pytest.fixture
def default_worker_tasks(default_worker_tasks: set[ModuleType]) -> set[ModuleType]:
    return {*default_worker_tasks, tasks}
