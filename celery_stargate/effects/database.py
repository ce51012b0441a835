"""Database connections of the effects' threads: closed and renewed as around a task in a worker.

And the thread in which Django allows database calls of code that an event loop runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from celery.fixups.django import DjangoFixup

from celery_stargate.support.log import logger_of

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["call_where_allowed", "own_connections"]

logger = logger_of(__name__)

_Result = TypeVar("_Result")


@contextmanager
def own_connections(app: Celery) -> Iterator[None]:
    """Close this thread's connections before and after some effects.

    A connection that the database dropped would otherwise fail again and again. Celery's Django
    fix-up does this around each task, but only in workers, and in the threads that run tasks.

    Arguments:
        app: of the effects. Unless it has Celery's Django fix-up, nothing is done.
    """
    django = _fixups_of(app)
    _close(django)
    try:
        yield
    finally:
        _close(django)


async def call_where_allowed(app: Celery, function: Callable[[], _Result]) -> _Result:
    """Call a function that may use the database, from an event loop.

    Django allows no database call in a loop's thread. It is called as by ``sync_to_async`` there:
    with the connection, and so the transaction, of all other synchronous code of the caller.

    Arguments:
        app: whose function it is. Unless it has Celery's Django fix-up, this thread calls it.
        function: to call.

    Raises:
        What the function raises.
    """
    if not _fixups_of(app):
        return function()
    asgiref: Any = import_module("asgiref.sync")
    result: _Result = await asgiref.sync_to_async(function)()
    return result


def _fixups_of(app: Celery) -> list[DjangoFixup]:
    fixups: Any = getattr(app, "_fixups", None) or ()
    return [each for each in fixups if isinstance(each, DjangoFixup)]


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
