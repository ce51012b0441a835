"""Tell that a callback's task has started, so that the callback is not published again."""

from __future__ import annotations

from celery_stargate.calls.runtime import Runtime
from celery_stargate.errors import StargateError
from celery_stargate.support.bound import bounded
from celery_stargate.support.log import logger_of

__all__ = ["note_start"]

logger = logger_of(__name__)

#: Seconds that a task waits at most before it begins.
_BOUND = 1.0


def note_start(runtime: Runtime, task_id: object) -> None:
    """Forget what was kept of a callback whose task begins.

    A produce task begins when its message is in its lane, which keeps it from then on.
    Where Redis does not answer, this is logged, and nothing is raised.

    Arguments:
        runtime: of the app.
        task_id: what the task's ``STARTED_HEADER`` says; no text if the callback was not kept.
    """
    if not isinstance(task_id, str):
        return
    try:
        with bounded(_BOUND):
            runtime.unstarted.started(task_id)
    except StargateError as error:
        # It is published again, and then this task runs twice.
        logger.warning("cannot tell that callback %s has started: %s", task_id, error)
