"""Database connections of the effects' threads: closed and renewed as around a task in a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery.fixups.django import DjangoFixup

from celery_stargate.support.log import logger_of

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["own_connections"]

logger = logger_of(__name__)


@contextmanager
def own_connections(app: Celery) -> Iterator[None]:
    """Close this thread's connections before and after some effects.

    A connection that the database dropped would otherwise fail again and again. Celery's Django
    fix-up does this around each task, but only in workers, and in the threads that run tasks.

    Arguments:
        app: of the effects. Unless it has Celery's Django fix-up, nothing is done.
    """
    fixups: Any = getattr(app, "_fixups", None) or ()
    django = [each for each in fixups if isinstance(each, DjangoFixup)]
    _close(django)
    try:
        yield
    finally:
        _close(django)


def _close(fixups: list[DjangoFixup]) -> None:
    for each in fixups:
        try:
            database: Any = import_module("django.db")
            # Of those that may stay open by CELERY_DB_REUSE_MAX, those that do not work.
            database.close_old_connections()
            each.worker_fixup.close_database()
            each.worker_fixup.close_cache()
        except Exception:  # it is logged, and the effects go on
            logger.exception("the database connections of the effects' thread cannot be closed")
