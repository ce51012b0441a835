"""Celery's tracer, run over an outcome instead of a task's own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from celery import Celery, Task, _state

from celery_stargate.errors import ProduceError
from celery_stargate.model.follow_up import PRODUCE
from celery_stargate.model.outcome import Failure, error_of

__all__ = ["OUTCOME", "OutcomeTask", "acting_as", "run"]

#: Where the tracer's request holds the outcome that the task is to return or to raise.
OUTCOME = "stargate_outcome"


class OutcomeTask(Task):  # type: ignore[type-arg]
    """A task that Celery traces when its message has an outcome, over :func:`run`."""

    abstract = True
    #: The task that tells the outcome of a task that is not registered here.
    default_name: ClassVar[str] = PRODUCE

    throws = (ProduceError,)
    # The log line names the context; formatting the whole receipt would cost most of a message.
    resultrepr_maxsize = 64

    def in_process(self, message: Any, **given: Any) -> Any:
        """Publish and wait in this process; what a direct call does.

        Raises:
            NotImplementedError: the task has no such way.
        """
        raise NotImplementedError


def run(
    self: OutcomeTask,
    message: Any = None,
    *,
    topic: str | None = None,
    on_ack: Any = None,
    on_error: Any = None,
    delivery_timeout: Any = None,
    via: str | None = None,
) -> Any:
    """Return the receipt, or raise the failure: Celery's tracer calls it when there is an outcome.

    Called in process, it publishes and waits.
    """
    outcome = getattr(self.request, OUTCOME, None)
    if isinstance(outcome, Failure):
        raise error_of(outcome)
    if outcome is not None:
        return outcome
    return self.in_process(
        message,
        topic=topic,
        on_ack=on_ack,
        on_error=on_error,
        delivery_timeout=delivery_timeout,
    )


@contextmanager
def acting_as(app: Celery) -> Iterator[None]:
    """Make an app the thread's current one: by that the parts of a canvas are published."""
    before = _state.get_current_app()
    app.set_current()
    try:
        yield
    finally:
        before.set_current()
