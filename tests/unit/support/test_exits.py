"""What ends a program, as an ordinary error."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from celery_stargate.support.exits import CodeExited, as_error


def test_an_ordinary_error_stays() -> None:
    """It is the same object."""
    error = LookupError("x")
    assert as_error(error) is error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_in_a_thread_it_is_an_ordinary_error(error: BaseException) -> None:
    """It names what was raised, and has it as its cause."""
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(as_error, error).result(timeout=10)
    assert isinstance(found, CodeExited)
    assert type(error).__name__ in str(found)
    assert found.__cause__ is error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), SoftTimeLimitExceeded()])
def test_in_the_main_thread_it_ends_the_program(error: BaseException) -> None:
    """A signal handler raises there."""
    with pytest.raises(type(error)) as caught:
        as_error(error)
    assert caught.value is error


def test_in_a_thread_a_soft_time_limit_is_an_error() -> None:
    """Of whoever raised it: no signal handler runs there."""
    error = SoftTimeLimitExceeded()
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(as_error, error).result(timeout=10) is error
