"""What the tests of results share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from celery.app.trace import logger as trace_logger


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The log is at WARNING, as by default; a test elsewhere may have changed that."""
    before = trace_logger.level
    trace_logger.setLevel(logging.WARNING)
    yield
    trace_logger.setLevel(before)
