"""What Celery keeps for a whole process, given back after a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery, _state

__all__ = ["celery_restored"]


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
