"""Run Celery's tracer over an outcome, in the place of a task's own code.

The tracer stores the result and does links, chains, chords and signals, so that every result
backend and option means for a produce task what it means for any task
(``celery.app.trace.build_tracer``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, ClassVar

from celery import Celery, Task, _state, signals
from celery.app.task import Context
from celery.app.trace import build_tracer

from celery_stargate.effects.results.write import ResultBatch, may_batch
from celery_stargate.effects.signatures import unpack
from celery_stargate.errors import ProduceError
from celery_stargate.model.durations import until
from celery_stargate.model.follow_up import PRODUCE
from celery_stargate.model.outcome import Failure, error_of
from celery_stargate.model.revocation import EXPIRED, REVOKED, expired_failure
from celery_stargate.support.log import logger

__all__ = ["OUTCOME", "OutcomeTask", "OutcomeTracer", "acting_as", "run"]

#: The field of the tracer's request with the outcome that the task returns or raises.
OUTCOME = "stargate_outcome"


class OutcomeTask(Task):  # type: ignore[type-arg]
    """A task that Celery traces when its message has an outcome; its body is :func:`run`."""

    abstract = True
    #: The name of the task that is traced for a task that is not registered here.
    default_name: ClassVar[str] = PRODUCE

    throws = (ProduceError,)
    # The log line names the context; formatting the whole receipt would cost more than the rest.
    resultrepr_maxsize = 64

    def in_process(self, message: Any, **given: Any) -> Any:
        """Publish and wait in this process, as a direct call of the task does.

        Raises:
            NotImplementedError: a subclass does not support direct calls.
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
    """Return the receipt, or raise the failure, when Celery's tracer calls it with an outcome.

    A direct call publishes the message and waits.
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
    """Make an app the thread's current one: Celery publishes the parts of a canvas with that."""
    before = _state.get_current_app()
    app.set_current()
    try:
        yield
    finally:
        before.set_current()


class _Way(Enum):
    """How a tracer treats what the task returns or raises."""

    FAILED = "failed"  #: the error is stored as the task's failure
    STORED = "stored"  #: the result is stored at once
    BATCHED = "batched"  #: the result is kept until the batch is flushed


class OutcomeTracer:
    """Traces tasks in one thread.

    Arguments:
        app: the app of the tasks.
        hostname: the worker's name, for results and events; None outside a worker.
        batch: gets the rows of results that may be stored a moment later.
    """

    def __init__(self, app: Celery, hostname: str | None, batch: ResultBatch) -> None:
        self._app = app
        self._hostname = hostname
        self._batch = batch
        self._tracers: dict[tuple[str, _Way], Callable[..., Any]] = {}

    def trace(self, task: str, context: str, request: str | None, outcome: Any) -> None:
        """Let Celery store a task's outcome and do what goes on from it.

        Arguments:
            task: the name of the task.
            context: its id.
            request: its packed request.
            outcome: what it returns, or a :class:`Failure`, which it raises.

        Raises:
            RuntimeError: the backend was unavailable while the failure was stored.
            Whatever the backend or the broker raises for a result.
        """
        fields = {
            "delivery_info": {"priority": None, "redelivered": False},
            **(unpack(request) if request is not None else {}),
            "is_eager": False,
            "hostname": self._hostname,
            OUTCOME: outcome,
        }
        if isinstance(outcome, Failure):
            outcome = self._expired_or(outcome, fields.get("expires"))
        if isinstance(outcome, Failure) and outcome.code in (REVOKED, EXPIRED):
            self._revoke(task, context, Context(fields), outcome)
            return
        if isinstance(outcome, Failure):
            way = _Way.FAILED
        elif may_batch(self._app.backend, fields):
            way = _Way.BATCHED
        else:
            way = _Way.STORED
        tracer = self._tracer(task, way)
        with acting_as(self._app):
            traced = tracer(context, (), {}, fields)
        if way is _Way.FAILED:
            stored = getattr(traced.info, "retval", None)
            if not isinstance(stored, ProduceError):
                # The backend failed, and the tracer took that for the task's own failure.
                raise RuntimeError(f"the failure was not stored: {stored!r}")

    def _revoke(self, name: str, context: str, request: Context, failure: Failure) -> None:
        """Store that a task was revoked, as ``celery.worker.request`` does."""
        task: Any = self._task(name)
        ignored = task.ignore_result if request.ignore_result is None else request.ignore_result
        store = task.store_errors_even_if_ignored or not ignored
        task.backend.mark_as_revoked(context, failure.reason, request=request, store_result=store)
        signals.task_revoked.send(
            sender=task,
            request=request,
            terminated=False,
            signum=None,
            expired=failure.code == EXPIRED,
        )

    def _expired_or(self, failure: Failure, expires: Any) -> Failure:
        """Return a failure, or that of an expired task if this is what Celery's worker calls it.

        Arguments:
            expires: of the task's request.
        """
        never_sent = failure.code == "deadline" and failure.status == "refused"
        if never_sent and expires is not None and until(expires, self._app) <= 0:
            return expired_failure(failure.context, failure.topic)
        return failure

    def _tracer(self, name: str, way: _Way) -> Callable[..., Any]:
        """Return Celery's tracer for a task.

        For a receipt it propagates errors: if the backend or the broker is unavailable, we must
        try again, and not store that as the task's failure.
        """
        tracer = self._tracers.get((name, way))
        if tracer is None:
            task: Any = self._task(name)
            if way is _Way.BATCHED and task.backend is self._app.backend:
                task = type(task)()
                task.backend = self._batch.backend
            tracer = self._tracers[name, way] = build_tracer(
                name,
                task,
                self._app.loader,
                self._hostname,
                app=self._app,
                propagate=way is not _Way.FAILED,
            )
        return tracer

    def _task(self, name: str) -> OutcomeTask:
        task: Any = self._app.tasks.get(name)
        if isinstance(task, OutcomeTask):
            return task
        logger.warning(
            "task %s is not registered here as a produce task; its outcome is stored all the same",
            name,
        )
        return self._app.tasks[OutcomeTask.default_name]  # type: ignore[return-value]
