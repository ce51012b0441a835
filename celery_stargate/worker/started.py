"""Tell that a callback's task has started, in the process that runs it."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.signals import task_prerun

from celery_stargate.calls.runtime import Runtime
from celery_stargate.effects.callbacks import STARTED_HEADER
from celery_stargate.errors import StargateError
from celery_stargate.support.bound import bounded
from celery_stargate.support.log import logger_of

__all__ = ["StartsStep"]

logger = logger_of(__name__)

#: Seconds that a task waits at most before it begins.
_BOUND = 1.0


class StartsStep(bootsteps.Step):
    """Let a worker notice each start of a callback's task, where callbacks are kept until then.

    Also one that owns no lanes. It is made before the pool, whose processes inherit the receiver.
    Elsewhere there is none: with any receiver of this signal Celery does more for each result.
    """

    label = "Stargate's callbacks"

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        if Runtime.of(parent.app).settings.callbacks == "until_started":
            task_prerun.connect(_note, weak=False, dispatch_uid="celery_stargate.started")


def _note(sender: Any = None, **_: Any) -> None:
    """Forget what was kept of a callback whose task begins."""
    task_id = getattr(sender.request, STARTED_HEADER, None)
    if not isinstance(task_id, str):
        return
    try:
        with bounded(_BOUND):
            Runtime.of(sender.app).unstarted.started(task_id)
    except StargateError as error:
        # It is published again, and then this task runs twice.
        logger.warning("cannot tell that callback %s has started: %s", task_id, error)
