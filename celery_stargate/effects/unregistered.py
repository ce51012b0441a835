"""Warn of callbacks whose tasks the worker that publishes them does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_stargate.effects.signatures import heads
from celery_stargate.support.log import logger_of

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Unregistered"]

logger = logger_of(__name__)


class Unregistered:
    """Warns once of each task that is published as a callback and is not registered in an app.

    Celery publishes a task by its name. The worker that gets it discards it, if it does not know
    the name. Often that worker has the modules of this one.

    Arguments:
        app: whose tasks are known.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._warned: set[str] = set()

    def look(self, callback: Any) -> None:
        """Look at a callback that is about to be published: at the tasks of it that start first.

        Arguments:
            callback: a signature, group, chain or chord; of one task, plain JSON will do.
        """
        try:
            names = {each["task"] for each in heads(callback)}
        except (LookupError, TypeError):
            # Celery tells what is wrong with it when it is published.
            return
        for name in names:
            if name not in self._app.tasks and name not in self._warned:
                self._warned.add(name)
                logger.warning(
                    "the task of a callback is not registered in this worker: if the workers that "
                    "get it do not know it either, Celery discards it. If it is a task of this "
                    "app, import its module (include=…)",
                    task=name,
                )
