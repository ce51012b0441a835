"""A user's project, whose tests use the pytest plugin: for the tests of that plugin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.isolation import celery_restored

_ROOT = Path(__file__).parents[1]

#: The project: an app, a task that publishes, and what goes on after the receipt.
SHOP = """
from celery import Celery
from celery_stargate import Stargate, produce_task

app = Celery("shop", broker="redis://nowhere:1", backend="redis://nowhere:1")
app.conf.stargate_url = "ws://nowhere:1"
app.conf.stargate_topics = {"orders": "persistent://public/default/shop-orders"}
stargate = Stargate(app)
paid, refused = [], []


@app.task
def mark_paid(receipt, order):
    paid.append((order, receipt["status"]))


@app.task
def mark_refused(failure, order):
    refused.append((order, failure["code"]))


def place_order(order, item):
    return produce_task.delay(
        {"json": {"item": item}, "key": f"order-{order}"},
        topic="orders",
        on_ack=mark_paid.s(order),
        on_error=mark_refused.s(order),
    )
"""


#: Every warning of ours is an error; Celery's Redis backend calls what redis-py 8 calls deprecated.
_WARNINGS = """
filterwarnings =
    error
    ignore:Call to deprecated setex:DeprecationWarning
    default::ResourceWarning
"""


class Project:
    """A folder with a project and its tests.

    Args:
        pytester: pytest's own, which has the folder.
    """

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester = pytester
        monkeypatch.setenv("PYTHONPATH", f"{_ROOT}{os.pathsep}{pytester.path}")
        for name in ("STARGATE_TEST_URL", "STARGATE_TEST_REDIS_URL", "STARGATE_TEST_APP"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
        pytester.makepyfile(shop=SHOP)
        monkeypatch.syspath_prepend(pytester.path)

    def run(self, test: str, *options: str, ini: str = "", apart: bool = False) -> pytest.RunResult:
        """Run a test file.

        Args:
            test: the file's text.
            options: of pytest.
            ini: lines of its ini file.
            apart: in a process of its own, which takes seconds longer.
        """
        self._pytester.makeini(f"[pytest]\n{_WARNINGS}\n{ini}")
        self._pytester.makepyfile(test_shop=test)
        plugin = [] if installed() else ["-p", "pytest_celery_stargate"]
        run = self._pytester.runpytest_subprocess if apart else self._pytester.runpytest_inprocess
        with apps_restored():
            return run(*plugin, "-p", "no:cacheprovider", "-p", "no:xdist", *options)


def installed() -> bool:
    """Whether the plugin is installed as one, so that pytest loads it."""
    return "stargate" in entry_points(group="pytest11").names


@contextmanager
def apps_restored() -> Iterator[None]:
    """Begin without an app; give Celery back the apps and tasks that it had, after those of a
    project."""
    with celery_restored() as state:
        state._tls.current_app = state.default_app = None  # noqa: SLF001
        yield
