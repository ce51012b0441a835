"""What all tests share: real servers, and a marker for each folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from celery_stargate.lanes import record
from celery_stargate.support import log
from tests.isolation import celery_restored, log_restored

# A server that is missing skips its tests at home and fails them where CI is set: `require` there.
pytest_plugins = ["tests.servers.fixtures"]

# It runs in an environment of its own: `tox -e pytest-celery`.
collect_ignore = ["pytest_celery"]

# A slow machine must not fail an example: pytest-timeout bounds each test as a whole.
settings.register_profile("stargate", deadline=None)
settings.load_profile("stargate")

_HERE = Path(__file__).parent
_FOLDERS = ("unit", "simulation", "contract", "integration", "security", "acceptance")
#: They are no module's own tests: what they reach counts nowhere, and takes them longer.
_UNMEASURED = ("simulation", "security", "acceptance")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by its folder, so that `-m "unit or smoke"` chooses."""
    if item.path.is_relative_to(_HERE):
        folder = item.path.relative_to(_HERE).parts[0]
        if folder in _FOLDERS:
            item.add_marker(folder)
        if folder in _UNMEASURED:
            item.add_marker("no_cover")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Trace nothing in a test without coverage.

    In a worker of xdist pytest-cov starts two recorders, and its own `no_cover` stops only one.
    """
    tracer = sys.gettrace() if item.get_closest_marker("no_cover") else None
    if tracer is None:
        return (yield)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.fixture(autouse=True)
def _log_again() -> None:
    """Let each test log what is logged seldom."""
    record._log_now.cache_clear()  # noqa: SLF001


@pytest.fixture(autouse=True)
def _bad_lines_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise what pytest raises for a log line that cannot be made; users have it on stderr."""
    monkeypatch.setattr(log, "_report", _raise)


def _raise(*_: object) -> None:
    raise  # noqa: PLE0704


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Give each test the log that it began with: Celery's test worker sets up its own."""
    with log_restored():
        yield


@pytest.fixture(autouse=True)
def _own_celery() -> Iterator[None]:
    """Give each test the current app that it began with, and no tasks of another test's apps."""
    with celery_restored():
        yield
