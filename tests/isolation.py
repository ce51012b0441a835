"""What a whole process has, given back after a test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery, _state

__all__ = ["celery_restored", "log_restored"]

#: The loggers that Celery sets up when a worker starts, and ours; None is the root.
_LOGGERS = (
    None,
    "celery",
    "celery.task",
    "celery.redirected",
    "multiprocessing",
    "celery_stargate",
)


@contextmanager
def celery_restored() -> Iterator[Any]:
    """Give Celery back its current app afterwards, and forget the tasks of other apps.

    A task that ``app.task`` made is also a task of every app that is finalized later. What
    ``shared_task`` made stays: its module is not imported again.

    Yields:
        Celery's state.
    """
    state: Any = _state
    current, default = state._tls.current_app, state.default_app  # noqa: SLF001
    try:
        yield state
    finally:
        state._set_current_app(current)  # noqa: SLF001
        state.set_default_app(default)
        for made in list(state._on_app_finalizers):  # noqa: SLF001
            # Celery's own tasks, and those of ``shared_task``, are made elsewhere.
            if made.__module__ == Celery.__module__:
                state._on_app_finalizers.discard(made)  # noqa: SLF001


@contextmanager
def log_restored() -> Iterator[None]:
    """Take away handlers that were added meanwhile; give loggers their level and propagation."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(each.level, each.propagate, [*each.handlers]) for each in loggers]
    try:
        yield
    finally:
        for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate
            for each in [*logger.handlers]:
                if each not in handlers:
                    logger.removeHandler(each)
